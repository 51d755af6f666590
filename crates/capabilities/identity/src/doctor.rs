//! Checks each step from a mounted token to a credential and names the one that fails.

mod steps;

use crate::exchange::{Exchange as _, ExchangeError, Exchanger};
use crate::jwt;
use crate::keeper::KeeperError;
use postern_report::{Finding, Severity, Subject};
use std::sync::Arc;

/// The result of the checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// One finding for each step, in order.
    pub findings: Vec<Finding>,
    /// What only the provider can check.
    pub only_the_provider_sees: String,
}

/// Creates the findings about one provider.
struct Findings<'a> {
    provider: &'a str,
}

impl Findings<'_> {
    fn finding(&self, step: &str, severity: Severity, message: impl Into<String>) -> Finding {
        let subject = Subject::named("provider", self.provider);
        Finding::new(format!("identity/{step}"), severity, subject, message)
    }

    fn ok(&self, step: &str, message: impl Into<String>) -> Finding {
        self.finding(step, Severity::Ok, message)
    }
}

/// Checks all steps of one provider. The last step is an exchange; its token is discarded.
pub async fn examine(exchanger: &Exchanger) -> Report {
    let of = &Findings { provider: &exchanger.name };
    let mut findings = Vec::new();
    let (token, seen) = steps::source(of, exchanger).await;
    findings.extend(seen);
    let read = token.as_ref().and_then(|token| jwt::decode(&token.token).ok());
    if let Some((header, claims)) = &read {
        findings.extend(steps::claims(of, exchanger, claims));
        findings.extend(steps::cluster(of, exchanger, header, claims).await);
        findings.push(steps::publication(of, header, claims).await);
    }
    findings.extend(steps::provider(of, exchanger).await);
    // Without a token there is nothing to exchange.
    if token.is_some() || exchanger.source().is_none() {
        findings.push(exchange(of, exchanger).await);
    }
    Report {
        findings,
        only_the_provider_sees: steps::only_the_provider_sees(
            exchanger,
            read.as_ref().map(|(_, claims)| claims),
        ),
    }
}

async fn exchange(of: &Findings<'_>, exchanger: &Exchanger) -> Finding {
    match exchanger.exchange(None).await {
        Ok(issued) => {
            let life = issued
                .lifetime
                .map_or("of unknown lifetime".to_owned(), |life| format!("for {} s", life.as_secs()));
            of.ok("exchange", format!("a credential was issued, {life}"))
        }
        Err(error @ ExchangeError::NoPerson { .. }) => {
            of.finding("exchange", Severity::Inconclusive, error.to_string()).fix("log in at a terminal")
        }
        Err(error) => {
            let error = Arc::new(KeeperError::from(error));
            let fix = error.cause().map(|cause| format!("usually: {cause}"));
            let mut seen = error.to_string();
            let mut source = std::error::Error::source(&*error);
            while let Some(next) = source {
                let text = next.to_string();
                if !seen.contains(&text) {
                    seen.push_str(": ");
                    seen.push_str(&text);
                }
                source = next.source();
            }
            let finding = of.finding("exchange", Severity::Problem, seen);
            match fix {
                Some(fix) => finding.fix(fix),
                None => finding,
            }
        }
    }
}
