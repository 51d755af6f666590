//! Charts as inline SVG.
//!
//! The crates that draw charts set colours, fonts and styles in each element. Here they come from the page's style
//! sheet, so that they follow its light and dark theme and its content security policy, which allows no `style`
//! attribute. Only text that is escaped and numbers go into the markup.

use crate::chart::{Chart, ChartKind, number};
use crate::clean;

/// The width of a drawing, in its own units; the page scales it.
const WIDTH: f64 = 640.0;
/// Room for labels left of horizontal bars.
const LABELS: f64 = 190.0;
/// Room right of bars, for their value.
const VALUES: f64 = 60.0;
const BAR: f64 = 14.0;
const LINE_HEIGHT: f64 = 220.0;
/// How many colours the style sheet has.
const COLOURS: usize = 6;
/// Longer labels are cut; the whole is in the table below the drawing.
const LABEL: usize = 26;

/// Draws a chart; nothing if it has no values. `title` is the id of the element that names it.
pub(crate) fn draw(chart: &Chart, title: &str) -> Option<String> {
    let values =
        || (0..chart.series.len()).flat_map(|series| (0..chart.labels.len()).map(move |at| (series, at)));
    if !values().any(|(series, label)| chart.value(series, label).is_some()) {
        return None;
    }
    let (height, body) = match chart.kind {
        ChartKind::Bar => bars(chart, false),
        ChartKind::StackedBar => bars(chart, true),
        ChartKind::Line => lines(chart),
    };
    let title = escaped(title);
    Some(format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-labelledby=\"{title}\">{body}</svg>"
    ))
}

/// The class of a series: its colour, and for lines its dashes.
pub(crate) fn class(series: usize) -> String {
    format!("s{}", series % COLOURS)
}

/// Horizontal bars: names of containers are long, and a list may have any length.
fn bars(chart: &Chart, stacked: bool) -> (f64, String) {
    let count = chart.series.len();
    let size = |series: usize, label: usize| chart.value(series, label).map(|value| value.max(0.0));
    let whole = |label: usize| (0..count).filter_map(|series| size(series, label)).sum::<f64>();
    let longest = (0..chart.labels.len()).map(|label| {
        if stacked {
            whole(label)
        } else {
            (0..count).filter_map(|series| size(series, label)).fold(0.0, f64::max)
        }
    });
    let scale = Scale::over(0.0, longest.fold(0.0, f64::max));
    let x = |value: f64| LABELS + scale.part(value) * (WIDTH - LABELS - VALUES);
    let in_group = if stacked { 1 } else { count };
    let group = units(in_group) * BAR + 12.0;
    let bottom = group * units(chart.labels.len()) + 4.0;
    let mut body = String::new();
    for tick in &scale.ticks {
        let at = x(*tick);
        body.push_str(&format!(
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{bottom:.1}\"/><text x=\"{at:.1}\" \
             y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 15.0,
            number(*tick)
        ));
    }
    for (label, name) in chart.labels.iter().enumerate() {
        let top = group * units(label) + 6.0;
        let middle = top + units(in_group) * BAR / 2.0 + 4.0;
        body.push_str(&format!(
            "<text class=\"label\" x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LABELS - 8.0,
            escaped(&shortened(name))
        ));
        let mut from = 0.0;
        for series in 0..count {
            let Some(value) = size(series, label) else { continue };
            let (start, y) = if stacked { (from, top) } else { (0.0, top + units(series) * BAR) };
            from += value;
            let width = (x(start + value) - x(start)).max(0.5);
            body.push_str(&format!(
                "<rect class=\"{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
                class(series),
                x(start),
                y + 1.0,
                BAR - 2.0
            ));
            if !stacked {
                body.push_str(&value_text(x(value), y + 11.0, value));
            }
        }
        if stacked {
            body.push_str(&value_text(x(from), top + 11.0, from));
        }
    }
    let axis = format!("<line class=\"axis\" x1=\"{LABELS}\" x2=\"{LABELS}\" y1=\"0\" y2=\"{bottom:.1}\"/>");
    (bottom + 22.0, body + &axis)
}

fn value_text(x: f64, y: f64, value: f64) -> String {
    format!("<text class=\"value\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>", x + 5.0, number(value))
}

fn lines(chart: &Chart) -> (f64, String) {
    let (left, right, top) = (56.0, WIDTH - 16.0, 8.0);
    let bottom = top + LINE_HEIGHT;
    let values = (0..chart.series.len())
        .flat_map(|series| (0..chart.labels.len()).filter_map(move |label| chart.value(series, label)));
    // Zero is always shown: a cut axis makes small changes look large.
    let (low, high) =
        values.fold((0.0, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
    let scale = Scale::over(low, high);
    let y = |value: f64| bottom - scale.part(value) * LINE_HEIGHT;
    let step = (right - left) / units(chart.labels.len().saturating_sub(1).max(1));
    let x = |label: usize| left + units(label) * step;
    let mut body = String::new();
    for tick in &scale.ticks {
        let at = y(*tick);
        body.push_str(&format!(
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" \
             y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            number(*tick)
        ));
    }
    // At most eight labels have room side by side.
    let every = chart.labels.len().div_ceil(8).max(1);
    for (label, name) in chart.labels.iter().enumerate().step_by(every) {
        let anchor = match label {
            0 => "start",
            last if last + 1 == chart.labels.len() => "end",
            _ => "middle",
        };
        body.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            x(label),
            bottom + 18.0,
            escaped(&shortened(name))
        ));
    }
    for series in 0..chart.series.len() {
        // A missing value makes a gap.
        let (mut path, mut pen_down) = (String::new(), false);
        for label in 0..chart.labels.len() {
            let value = chart.value(series, label);
            if let Some(value) = value {
                let command = if pen_down { 'L' } else { 'M' };
                path.push_str(&format!("{command}{:.1} {:.1}", x(label), y(value)));
                body.push_str(&format!(
                    "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
                    class(series),
                    x(label),
                    y(value)
                ));
            }
            pen_down = value.is_some();
        }
        body.push_str(&format!("<path class=\"{}\" d=\"{path}\"/>", class(series)));
    }
    let zero = y(0.0);
    body.push_str(&format!(
        "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{zero:.1}\" y2=\"{zero:.1}\"/>"
    ));
    (bottom + 26.0, body)
}

/// An axis with round numbers at its ticks.
struct Scale {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Scale {
    fn over(low: f64, high: f64) -> Self {
        let span = high - low;
        if !(span.is_finite() && span > f64::MIN_POSITIVE) {
            let high = if high > low { high } else { low + 1.0 };
            return Self { low, high, ticks: vec![low] };
        }
        let rough = span / 5.0;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * magnitude).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        let ticks = (0_u32..12).map(|index| (first + f64::from(index)) * step);
        let end = last * step;
        Self {
            low: first * step,
            high: end,
            ticks: ticks.take_while(|tick| *tick <= end + step / 2.0).collect(),
        }
    }

    /// Where a value is, from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        // Halves first: the difference of two finite numbers may not be finite.
        let part = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an index of a chart's labels is far below 2^52")]
fn units(count: usize) -> f64 {
    count as f64
}

fn shortened(label: &str) -> String {
    let label = clean::line(label);
    if label.chars().count() <= LABEL {
        return label.into_owned();
    }
    label.chars().take(LABEL - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn ticks_are_round() {
        let scale = Scale::over(0.0, 2048.0);
        assert_eq!(scale.ticks, [0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0]);
        let scale = Scale::over(-3.0, 7.0);
        assert_eq!((scale.low, scale.high), (-4.0, 8.0));
        assert!((scale.part(2.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn every_number_in_a_drawing_is_one() {
        let charts = [sample::report().charts, sample::hostile().charts].concat();
        for chart in charts {
            let svg = draw(&chart, "title").unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(!svg.contains("style=") && !svg.contains("<img") && !svg.contains("<script"), "{svg}");
        }
    }

    #[test]
    fn without_values_there_is_nothing_to_draw() {
        let chart = Chart::new("t", "", ChartKind::Line, ["a"]).with("x", [None]);
        assert_eq!(draw(&chart, "title"), None);
        assert_eq!(draw(&Chart::new("t", "", ChartKind::Bar, [""; 0]), "title"), None);
    }

    #[test]
    fn a_gap_begins_a_new_line() {
        let chart = Chart::new("t", "", ChartKind::Line, ["a", "b", "c", "d"])
            .with("x", [Some(1.0), Some(2.0), None, Some(3.0)]);
        assert_eq!(draw(&chart, "title").unwrap().matches('M').count(), 2);
    }
}
