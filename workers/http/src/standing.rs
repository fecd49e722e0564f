//! Whether what a stream was opened with still holds: a stream may outlive its token.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use sluice_identity::certificate::ClientCertificate;
use sluice_identity::claims::Claims;

use crate::caller::Resolved;
use crate::doors::Peer;
use crate::reject::Reject;
use crate::trust::{TrustCell, now_s};

/// LIMIT: how long a clock that is set forward can go unseen.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How a credential ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

impl Ended {
    /// The word for clients.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// The token and the certificate that a request came with, as far as this process judges them. A role's key does
/// not end; for a client that the edge vouches for, the edge ends what it let in.
#[derive(Clone, Default)]
pub struct Standing {
    token: Option<(Arc<Claims>, TrustCell)>,
    certificate: Option<(Arc<ClientCertificate>, TrustCell)>,
}

impl Standing {
    pub(crate) fn of_token(claims: Arc<Claims>, trust: &TrustCell) -> Self {
        Self { token: Some((claims, trust.clone())), certificate: None }
    }

    pub(crate) fn with_certificate(
        mut self,
        certificate: &Arc<ClientCertificate>,
        trust: &TrustCell,
    ) -> Self {
        self.certificate = Some((Arc::clone(certificate), trust.clone()));
        self
    }

    /// Whether it can end at all.
    pub fn can_end(&self) -> bool {
        self.token.is_some() || self.certificate.is_some()
    }

    /// How it has ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        let now_s = now_s();
        if let Some((claims, trust)) = &self.token {
            if trust.load().is_revoked(claims) {
                return Some(Ended::Revoked);
            }
            if now_s >= claims.exp.saturating_add(trust.rules().leeway_s) {
                return Some(Ended::Expired);
            }
        }
        let (certificate, trust) = self.certificate.as_ref()?;
        if trust.load().is_certificate_revoked(certificate) {
            return Some(Ended::Revoked);
        }
        (!certificate.is_valid_at(now_s)).then_some(Ended::Expired)
    }

    /// How long until it is to be asked again, if nothing is heard of [`TrustCell::changes`] before: within a second of
    /// the end of its time.
    pub fn left(&self) -> Duration {
        let token = self.token.as_ref().map(|token| token.0.exp.saturating_add(token.1.rules().leeway_s));
        let certificate = self.certificate.as_ref().map(|(certificate, _)| certificate.not_after_unix_s + 1);
        let until_s = token.into_iter().chain(certificate).min().unwrap_or(i64::MAX);
        let left_s = u64::try_from(until_s.saturating_sub(now_s())).unwrap_or(0);
        Duration::from_secs(left_s).clamp(Duration::from_millis(100), LOOK_AGAIN)
    }
}

impl<S: Sync> FromRequestParts<S> for Standing {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Reject> {
        let standing = match parts.extensions.get::<Resolved>() {
            Some(Resolved::Caller(_, standing)) => standing.clone(),
            _ => Self::default(),
        };
        Ok(standing)
    }
}

/// What a connection's certificate adds to a request's standing.
pub(crate) fn certified(standing: Standing, peer: &Peer, trust: &TrustCell) -> Standing {
    match &peer.client {
        Some(certificate) => standing.with_certificate(certificate, trust),
        None => standing,
    }
}
