//! Numbers that are not findings: what a table or a chart shows.

use schemars::JsonSchema;
use serde::Serialize;

/// A chart: some series of values over the same labels.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// The unit of all values, such as `MiB`; may be empty.
    pub unit: String,
    /// How it is drawn.
    pub kind: ChartKind,
    /// What each value of a series is for: a container, a time.
    pub labels: Vec<String>,
    /// The series.
    pub series: Vec<Series>,
}

/// How a chart is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChartKind {
    /// A bar for each label and series, side by side.
    Bar,
    /// A bar for each label, made of its series. Values below zero are drawn as zero.
    StackedBar,
    /// A line for each series; the labels are in order, most often times.
    Line,
}

/// A row of values.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// What it is, such as `request`.
    pub name: String,
    /// A value for each label; null where there is none.
    #[serde(serialize_with = "finite")]
    pub values: Vec<Option<f64>>,
}

impl Chart {
    /// A chart without series.
    pub fn new(
        title: impl Into<String>,
        unit: impl Into<String>,
        kind: ChartKind,
        labels: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            title: title.into(),
            unit: unit.into(),
            kind,
            labels: labels.into_iter().map(Into::into).collect(),
            series: Vec::new(),
        }
    }

    /// Adds a series.
    #[must_use]
    pub fn with(
        mut self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<Option<f64>>>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.series.push(Series { name: name.into(), values });
        self
    }

    /// The value of a series for a label. What is not a finite number is none.
    pub(crate) fn value(&self, series: usize, label: usize) -> Option<f64> {
        let value = self.series.get(series)?.values.get(label).copied().flatten()?;
        value.is_finite().then_some(value)
    }

    /// The table behind it: for each label, the label and a cell for each series.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let cell = |series, label| self.value(series, label).map_or_else(|| "-".to_owned(), number);
        let row = |(index, label): (usize, &String)| {
            let cells = (0..self.series.len()).map(|series| cell(series, index));
            std::iter::once(label.clone()).chain(cells).collect()
        };
        self.labels.iter().enumerate().map(row).collect()
    }
}

/// JSON has no infinity and no NaN: they are null, in YAML as well.
fn finite<S: serde::Serializer>(values: &[Option<f64>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|value| value.filter(|value| value.is_finite())))
}

/// A number as people write it: at most three decimals, and no zeros at the end.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.0, "0"), (-0.0, "0"), (250.0, "250"), (0.5, "0.5"), (1.23456, "1.235"), (-0.0001, "0")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn what_is_no_number_is_not_shown() {
        let chart = Chart::new("t", "m", ChartKind::Bar, ["a", "b", "c"])
            .with("x", [Some(1.0), None, Some(f64::NAN)])
            .with("short", [2.0]);
        assert_eq!(chart.rows(), [["a", "1", "2"], ["b", "-", "-"], ["c", "-", "-"]]);
    }
}
