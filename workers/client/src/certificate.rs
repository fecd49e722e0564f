//! A role's certificate, asked of the vault.

use http::Method;
use sluice_wire::certificate::{CertificateRequest, RoleCertificate};

use crate::call::{Client, ClientError};

impl Client {
    /// Asks the vault for a certificate of this role, over its internal door. Each call gives another one.
    pub async fn role_certificate(
        &self,
        request: &CertificateRequest,
    ) -> Result<RoleCertificate, ClientError> {
        let body = serde_json::to_value(request).map_err(ClientError::Shape)?;
        self.json(Method::POST, "/internal/certificates", &body).await
    }
}
