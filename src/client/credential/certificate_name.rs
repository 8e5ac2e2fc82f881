//! The third kind: a name in the certificate that the client connects with (`tls_client_auth`, RFC 8705
//! §2.1).
//!
//! Whether an authority that is trusted has signed a certificate is decided where the connection is
//! accepted. Here is which names it has, and which of them a client was registered with.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use countersign_mesh::claims::Timestamp;
use serde::{Deserialize, Serialize};
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use crate::client::{Client, Credential, CredentialKind};

/// The name of a client's that a certificate has; of several the first that works.
pub fn certified<'a>(
    candidate: Option<&'a Client>,
    certificate: &CertificateNames,
    now: Timestamp,
) -> Option<&'a Arc<Credential>> {
    let credentials = candidate.into_iter().flat_map(|client| &client.credentials);
    let mut matched = credentials.filter(|credential| match &credential.kind {
        CredentialKind::CertificateName(name) => certificate.contains(name),
        CredentialKind::Secret(_) | CredentialKind::PublicKey(_) => false,
    });
    let first = matched.next()?;
    std::iter::once(first).chain(matched).find(|one| !one.has_expired(now)).or(Some(first))
}

/// A name that a certificate can have (RFC 8705 §2.1.2), in its one spelling: equal names are equal
/// text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CertificateName {
    kind: CertificateNameKind,
    text: Box<str>,
}

/// Which of a certificate's names is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateNameKind {
    /// The subject, as RFC 4514 writes it: `CN=backup,O=Example`. Letter case and space count.
    SubjectDn,
    /// A DNS name among the subject alternative names, in lower case. No wildcard: it names one client.
    SanDns,
    /// A URI among them, exactly as it stands there.
    SanUri,
    /// An IP address among them.
    SanIp,
    /// An e-mail address among them, its domain in lower case.
    SanEmail,
}

/// Text that is not a name of the kind that it should be. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCertificateName(CertificateNameKind);

impl fmt::Display for InvalidCertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            CertificateNameKind::SubjectDn => {
                "not a distinguished name as RFC 4514 writes it, such as CN=backup,O=Example \
                 (`openssl x509 -noout -subject -nameopt RFC2253` prints it so)"
            }
            CertificateNameKind::SanDns => {
                "not a DNS name without wildcard, such as backup.example"
            }
            CertificateNameKind::SanUri => "not a URI, such as spiffe://example/backup",
            CertificateNameKind::SanIp => "not an IP address",
            CertificateNameKind::SanEmail => "not an e-mail address",
        })
    }
}

impl std::error::Error for InvalidCertificateName {}

impl CertificateNameKind {
    /// Every kind there is.
    pub const ALL: [Self; 5] =
        [Self::SubjectDn, Self::SanDns, Self::SanUri, Self::SanIp, Self::SanEmail];

    /// The kind in one word, as the store and the audit log have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SubjectDn => "subject_dn",
            Self::SanDns => "san_dns",
            Self::SanUri => "san_uri",
            Self::SanIp => "san_ip",
            Self::SanEmail => "san_email",
        }
    }
}

impl CertificateName {
    /// The longest text of a name, in bytes.
    pub const MAX_LEN: usize = 1024;

    /// Reads a name of a kind, and brings it to its one spelling.
    ///
    /// # Errors
    /// When the text is no such name.
    pub fn new(kind: CertificateNameKind, text: &str) -> Result<Self, InvalidCertificateName> {
        let text = if text.len() > Self::MAX_LEN { None } else { canonical(kind, text) };
        text.map(|text| Self { kind, text: text.into() }).ok_or(InvalidCertificateName(kind))
    }

    /// Which name it is.
    pub fn kind(&self) -> CertificateNameKind {
        self.kind
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// `san_dns:backup.example`: the kind, a colon and the name.
impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.text)
    }
}

impl CertificateName {
    /// Reads what [`Display`](fmt::Display) writes. `None` when the kind is not known, or the text not in
    /// its one spelling.
    pub fn from_canonical(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let kind = CertificateNameKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        Self::new(kind, name).ok().filter(|read| *read.text == *name)
    }
}

/// All names of a certificate. Whoever makes one has seen to it that its holder has the private key and
/// that a trusted authority has signed it: the TLS handshake does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames(Vec<CertificateName>);

/// Bytes that are not an X.509 certificate, or one whose names cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCertificate;

impl fmt::Display for InvalidCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an X.509 certificate, or its names cannot be read")
    }
}

impl std::error::Error for InvalidCertificate {}

impl CertificateNames {
    /// The names of a certificate in DER. A name that none of ours can equal, such as a wildcard, is
    /// passed over.
    ///
    /// # Errors
    /// When it is not a certificate, or its names cannot be read.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let certificate = Certificate::from_der(der).map_err(|_| InvalidCertificate)?;
        let certificate = certificate.tbs_certificate();
        let alternative =
            certificate.get_extension::<SubjectAltName>().map_err(|_| InvalidCertificate)?;
        let mut names = Vec::new();
        // An empty subject is no name (RFC 5280 §4.1.2.6).
        names.extend(printed(certificate.subject()).map(|text| CertificateName {
            kind: CertificateNameKind::SubjectDn,
            text: text.into(),
        }));
        for name in alternative.iter().flat_map(|(_, names)| &names.0) {
            let name = match name {
                GeneralName::DnsName(name) => (CertificateNameKind::SanDns, name.to_string()),
                GeneralName::UniformResourceIdentifier(uri) => {
                    (CertificateNameKind::SanUri, uri.to_string())
                }
                GeneralName::IpAddress(octets) => {
                    let address = ip_address(octets.as_bytes()).ok_or(InvalidCertificate)?;
                    (CertificateNameKind::SanIp, address.to_string())
                }
                GeneralName::Rfc822Name(address) => {
                    (CertificateNameKind::SanEmail, address.to_string())
                }
                GeneralName::OtherName(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EdiPartyName(_)
                | GeneralName::RegisteredId(_) => continue,
            };
            names.extend(CertificateName::new(name.0, &name.1));
        }
        Ok(Self(names))
    }

    /// Whether the certificate has this name.
    pub fn contains(&self, name: &CertificateName) -> bool {
        self.0.contains(name)
    }
}

fn canonical(kind: CertificateNameKind, text: &str) -> Option<String> {
    match kind {
        CertificateNameKind::SubjectDn => distinguished_name(text),
        CertificateNameKind::SanDns => dns_name(text),
        CertificateNameKind::SanUri => is_uri(text).then(|| text.to_owned()),
        CertificateNameKind::SanIp => text.parse().ok().map(|address: IpAddr| address.to_string()),
        CertificateNameKind::SanEmail => {
            let (local, domain) = text.rsplit_once('@')?;
            let is_local = !local.is_empty() && local.bytes().all(|byte| byte.is_ascii_graphic());
            let domain = dns_name(domain).filter(|_| is_local && !local.contains('@'))?;
            Some(format!("{local}@{domain}"))
        }
    }
}

fn distinguished_name(text: &str) -> Option<String> {
    let name = printed(&Name::from_str(text).ok()?)?;
    // The parser forgives a lone backslash at an end; what is printed never has one, so that what is
    // read from it again is the same.
    let again = printed(&Name::from_str(&name).ok()?)?;
    let trailing = text.bytes().rev().take_while(|byte| *byte == b'\\').count();
    (again == name && trailing % 2 == 0).then_some(name)
}

/// A subject as RFC 4514 §2 writes it, whatever string types the certificate has it in; `None` when it
/// is empty or has parts without a value.
fn printed(subject: &Name) -> Option<String> {
    if subject.is_empty() {
        return None;
    }
    let mut relative_names = Vec::with_capacity(subject.len());
    // RFC 4514 §2.1: the last one first.
    for relative_name in subject.as_ref().iter().collect::<Vec<_>>().into_iter().rev() {
        let attributes: Option<Vec<String>> = relative_name.iter().map(attribute).collect();
        // They are a set. Its order in DER depends on the string types.
        let mut attributes = attributes.filter(|attributes| !attributes.is_empty())?;
        attributes.sort_unstable();
        relative_names.push(attributes.join("+"));
    }
    Some(relative_names.join(","))
}

fn attribute(attribute: &AttributeTypeAndValue) -> Option<String> {
    let text = attribute.to_string();
    let read = AttributeTypeAndValue::from_str(&text).ok()?;
    // A short name that stands for another attribute would be a way to pass for someone else.
    if read.oid == attribute.oid {
        return Some(text);
    }
    let value = attribute.value.to_der().ok()?;
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{}=#{hex}", attribute.oid))
}

fn dns_name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let is_name = text.len() <= 253 && text.split('.').all(is_label);
    is_name.then(|| text.to_ascii_lowercase())
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn subject(text: &str) -> Option<String> {
        CertificateName::new(CertificateNameKind::SubjectDn, text)
            .ok()
            .map(|name| name.as_str().to_owned())
    }

    fn names_of(attributes: &[(DnType, DnValue)]) -> CertificateNames {
        let mut subject = DistinguishedName::new();
        for (kind, value) in attributes {
            subject.push(kind.clone(), value.clone());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        CertificateNames::from_der(certificate.der()).expect("it has names")
    }

    #[test]
    fn a_distinguished_name_has_one_spelling() {
        for same in ["CN=a\\,b,O=E", "cn=a\\2cb,o=E", "commonName=a\\2Cb,O=\\45"] {
            assert_eq!(subject(same).as_deref(), Some(r"CN=a\,b,O=E"), "{same}");
        }
        assert_eq!(subject("CN=\\ a\\ ,O=E").as_deref(), Some(r"CN=\ a\ ,O=E"));
        // The parts of one relative name are a set.
        assert_eq!(subject("OU=x+CN=a,O=E"), subject("CN=a+OU=x,O=E"));
        assert_ne!(subject("CN=a,O=E"), subject("O=E,CN=a"));
        assert_ne!(subject("CN=a"), subject("CN=A"));
        for bad in ["CN=a\\", "CN=a\\\\\\", "CN", "", "CN=a,", "X=a", "CN=\\zz"] {
            assert_eq!(subject(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_subject_is_the_same_whatever_its_string_types() {
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let printable = |text: &str| DnValue::PrintableString(text.try_into().expect("printable"));
        let name = CertificateName::new(CertificateNameKind::SubjectDn, "CN=backup,O=Ex,C=DE")
            .expect("a name");
        for value in [utf8, printable] {
            let names = names_of(&[
                (DnType::CountryName, value("DE")),
                (DnType::OrganizationName, value("Ex")),
                (DnType::CommonName, value("backup")),
            ]);
            assert!(names.contains(&name), "{names:?}");
        }
    }

    #[test]
    fn no_subject_can_be_spelt_to_pass_for_another() {
        let name =
            |text| CertificateName::new(CertificateNameKind::SubjectDn, text).expect("a name");
        let tricky =
            |text: &str| names_of(&[(DnType::CommonName, DnValue::Utf8String(text.to_owned()))]);
        assert!(tricky("a,O=E").contains(&name(r"CN=a\,O\=E")));
        for text in ["a,O=E", "a\\,O=E", "a+O=E", "a\0", " a", "a "] {
            assert!(!tricky(text).contains(&name("CN=a,O=E")), "{text}");
            assert!(!tricky(text).contains(&name("CN=a")), "{text}");
            assert!(!tricky(text).contains(&name("CN=a+O=E")), "{text}");
        }
        // An attribute of a type that has no short name, with the value of one that has.
        let custom = names_of(&[(
            DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]),
            DnValue::Utf8String("a".to_owned()),
        )]);
        assert!(!custom.contains(&name("CN=a")));
        assert!(custom.contains(&name("1.3.6.1.4.1.99999.1=a")), "{custom:?}");
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        assert_eq!(CertificateNames::from_der(b""), Err(InvalidCertificate));
        assert_eq!(CertificateNames::from_der(&[0x30, 0]), Err(InvalidCertificate));
        let empty = names_of(&[]);
        assert_eq!(empty.0, [], "an empty subject is no name");
    }
}
