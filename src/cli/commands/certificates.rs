//! `client cert`: the names in the certificates that a client connects with.

use serde::Serialize;

use crate::cli::args::client_credentials::{CertCommand, CertNameArgs};
use crate::cli::commands::Server;
use crate::cli::commands::clients::{self, proto_duration};
use crate::cli::connection::request_id;
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::output::{self, Output, View};
use crate::rpc::client_certificate::Name;
use crate::rpc::client_service_client::ClientServiceClient;
use crate::rpc::{
    self, ClientCertificate, CreateClientCertificateRequest, RevokeClientCertificateRequest,
};

/// Registers, lists or revokes the names in a client's certificates.
pub async fn run(
    command: CertCommand,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        CertCommand::Add { id, name, ttl } => {
            let connection = server.connect().await?;
            let mut service = ClientServiceClient::new(connection.clone());
            let request = CreateClientCertificateRequest {
                client_id: id.clone(),
                certificate: Some(named(name)),
                ttl: ttl.map(proto_duration).transpose()?,
                request_id: request_id()?,
            };
            let answer = connection.answer(service.create_client_certificate(request).await)?;
            let certificate = CertificateInfo::from(answer.certificate.unwrap_or_default());
            output.show(&Added { client_id: id, certificate })
        }
        CertCommand::List { id } => {
            let client = clients::read(id, &server.connect().await?).await?;
            let certificates = client.certificates.into_iter().map(CertificateInfo::from).collect();
            output.show(&Certificates { certificates })
        }
        CertCommand::Revoke { id, name } => {
            let connection = server.connect().await?;
            let mut service = ClientServiceClient::new(connection.clone());
            let certificate = named(name);
            let revoked = CertificateInfo::from(certificate.clone());
            let request = RevokeClientCertificateRequest {
                client_id: id.clone(),
                certificate: Some(certificate),
                request_id: request_id()?,
            };
            connection.answer(service.revoke_client_certificate(request).await)?;
            let CertificateInfo { kind, name, .. } = revoked;
            output.show(&Revoked { client_id: id, kind, name })
        }
    }
}

fn named(args: CertNameArgs) -> ClientCertificate {
    let CertNameArgs { subject_dn, san_dns, san_uri, san_ip, san_email } = args;
    let name = subject_dn
        .map(Name::SubjectDn)
        .or(san_dns.map(Name::SanDns))
        .or(san_uri.map(Name::SanUri))
        .or(san_ip.map(Name::SanIp))
        .or(san_email.map(Name::SanEmail));
    ClientCertificate { name, ..ClientCertificate::default() }
}

/// What is known of a name in a certificate.
#[derive(Serialize)]
pub struct CertificateInfo {
    kind: &'static str,
    name: String,
    create_time: Option<String>,
    expire_time: Option<String>,
    last_use_time: Option<String>,
}

impl From<rpc::ClientCertificate> for CertificateInfo {
    fn from(certificate: rpc::ClientCertificate) -> Self {
        let (kind, name) = match certificate.name {
            Some(Name::SubjectDn(name)) => ("subject-dn", name),
            Some(Name::SanDns(name)) => ("san-dns", name),
            Some(Name::SanUri(name)) => ("san-uri", name),
            Some(Name::SanIp(name)) => ("san-ip", name),
            Some(Name::SanEmail(name)) => ("san-email", name),
            None => ("-", String::new()),
        };
        Self {
            kind,
            name,
            create_time: certificate.create_time.as_ref().map(output::time),
            expire_time: certificate.expire_time.as_ref().map(output::time),
            last_use_time: certificate.last_use_time.as_ref().map(output::time),
        }
    }
}

/// A table of names.
pub fn table(certificates: &[CertificateInfo]) -> String {
    let row = |certificate: &CertificateInfo| {
        let or = |time: &Option<String>, otherwise: &str| {
            time.clone().unwrap_or_else(|| otherwise.to_owned())
        };
        [
            certificate.kind.to_owned(),
            certificate.name.clone(),
            or(&certificate.create_time, "-"),
            or(&certificate.expire_time, "never"),
            or(&certificate.last_use_time, "never"),
        ]
    };
    output::table(
        ["CERTIFICATE", "NAME", "CREATED", "EXPIRES", "LAST USED"],
        &certificates.iter().map(row).collect::<Vec<_>>(),
    )
}

#[derive(Serialize)]
struct Certificates {
    certificates: Vec<CertificateInfo>,
}

impl View for Certificates {
    fn human(&self) -> String {
        table(&self.certificates)
    }
}

#[derive(Serialize)]
struct Added {
    client_id: String,
    certificate: CertificateInfo,
}

impl View for Added {
    fn human(&self) -> String {
        format!(
            "{} {} of client {} is registered\n",
            self.certificate.kind,
            escape(&self.certificate.name),
            escape(&self.client_id)
        )
    }
}

#[derive(Serialize)]
struct Revoked {
    client_id: String,
    kind: &'static str,
    name: String,
}

impl View for Revoked {
    fn human(&self) -> String {
        format!(
            "{} {} of client {} is revoked\n",
            self.kind,
            escape(&self.name),
            escape(&self.client_id)
        )
    }
}
