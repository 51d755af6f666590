//! IBM Cloud IAM: exchanges a compute resource's token for a trusted profile (`cr-token`).

use super::token_endpoint::{Asking, parameter, token};
use super::{ExchangeError, Exchanger, Issued};
use crate::ibm::IAM;

pub(super) async fn exchange(exchanger: &Exchanger) -> Result<Issued, ExchangeError> {
    let provider = &exchanger.provider;
    let subject = exchanger.subject().await?;
    let server = provider.endpoint.as_deref().unwrap_or(IAM).trim_end_matches('/');
    let url = format!("{server}/identity/token");
    let profile = provider.profile.as_deref().unwrap_or_default();
    let by = if profile.starts_with("Profile-") { "profile_id" } else { "profile_name" };
    let form = vec![
        parameter("grant_type", "urn:ibm:params:oauth:grant-type:cr-token"),
        ("cr_token".to_owned(), subject.token.clone()),
        parameter(by, profile),
    ];
    let asking = Asking { r#type: provider.r#type, claims: subject.claims.as_ref(), once: false };
    token(&exchanger.server(server)?, &url, &form, &[], asking).await
}
