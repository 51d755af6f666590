//! Walks the chain from a mounted token to a credential and names the broken link.

mod steps;

use crate::exchange::{Exchange as _, ExchangeError, Exchanger};
use crate::jwt;
use crate::keeper::KeeperError;
use serde::Serialize;
use std::sync::Arc;

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and something about it is worth a word.
    Warning,
    /// Broken: this is what has to be mended.
    Broken,
    /// It cannot be seen from here.
    Unknown,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What was looked at.
    pub link: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Link {
    fn ok(link: &'static str, seen: impl Into<String>) -> Self {
        Self { link, state: State::Ok, seen: seen.into(), fix: None }
    }

    fn new(link: &'static str, state: State, seen: impl Into<String>, fix: &str) -> Self {
        Self { link, state, seen: seen.into(), fix: Some(fix.to_owned()) }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The provider.
    pub provider: String,
    /// The links, in their order.
    pub links: Vec<Link>,
    /// What only the provider can see.
    pub only_the_provider_sees: String,
}

impl Report {
    /// The first broken link.
    pub fn broken(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.state == State::Broken)
    }
}

/// Walks the chain of one provider. The last step is an exchange; its token is thrown away.
pub async fn examine(exchanger: &Exchanger) -> Report {
    let mut links = Vec::new();
    let (token, seen) = steps::source(exchanger).await;
    links.extend(seen);
    let read = token.as_ref().and_then(|token| jwt::decode(&token.token).ok());
    if let Some((header, claims)) = &read {
        links.extend(steps::claims(exchanger, claims));
        links.extend(steps::cluster(exchanger, header, claims).await);
        links.push(steps::publication(header, claims).await);
    }
    links.extend(steps::provider(exchanger).await);
    // Without a token to exchange there is nothing to try.
    if token.is_some() || exchanger.source().is_none() {
        links.push(exchange(exchanger).await);
    }
    Report {
        provider: exchanger.name.clone(),
        links,
        only_the_provider_sees: steps::only_the_provider_sees(
            exchanger,
            read.as_ref().map(|(_, claims)| claims),
        ),
    }
}

async fn exchange(exchanger: &Exchanger) -> Link {
    match exchanger.exchange(None).await {
        Ok(issued) => {
            let life = issued
                .lifetime
                .map_or("of unknown life".to_owned(), |life| format!("for {} s", life.as_secs()));
            Link::ok("exchange", format!("a credential was issued, {life}"))
        }
        Err(error @ ExchangeError::NoPerson { .. }) => {
            Link::new("exchange", State::Unknown, error.to_string(), "log in at a terminal")
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
            Link { link: "exchange", state: State::Broken, seen, fix }
        }
    }
}
