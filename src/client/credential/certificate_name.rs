//! The third kind of credential: a name in the client's certificate (`tls_client_auth`, RFC 8705 §2.1).
//!
//! The TLS handshake decides whether a trusted authority signed the certificate. This file only reads the
//! names of a certificate and finds the one that a client is registered with.

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

/// The credential of a client whose name the certificate has. Of several it is the first that has not
/// expired, so that an expired one does not hide one that works.
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

/// A name that a certificate can have (RFC 8705 §2.1.2), in canonical spelling: two names are equal exactly
/// when their texts are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CertificateName {
    kind: CertificateNameKind,
    text: Box<str>,
}

/// Which name of a certificate is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateNameKind {
    /// The subject as RFC 4514 writes it: `CN=backup,O=Example`. Case and spaces count.
    SubjectDn,
    /// A DNS name among the subject alternative names, in lower case. It cannot be a wildcard, since it has to
    /// name one client.
    SanDns,
    /// A URI among the subject alternative names, exactly as the certificate has it.
    SanUri,
    /// An IP address among the subject alternative names.
    SanIp,
    /// An e-mail address among the subject alternative names, with its domain in lower case.
    SanEmail,
}

/// The text is not a name of this kind. The error does not repeat it.
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
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::SubjectDn, Self::SanDns, Self::SanUri, Self::SanIp, Self::SanEmail];

    /// The kind in one word, as it stands in the store and in the audit log.
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
    /// The length of the longest name, in bytes.
    pub const MAX_LEN: usize = 1024;

    /// Reads a name of this kind and puts it into canonical spelling.
    ///
    /// # Errors
    /// When the text is not a name of this kind, or is longer than [`CertificateName::MAX_LEN`].
    pub fn new(kind: CertificateNameKind, text: &str) -> Result<Self, InvalidCertificateName> {
        let text = if text.len() > Self::MAX_LEN { None } else { canonical(kind, text) };
        text.map(|text| Self { kind, text: text.into() }).ok_or(InvalidCertificateName(kind))
    }

    /// The kind of the name.
    pub fn kind(&self) -> CertificateNameKind {
        self.kind
    }

    /// The name, without its kind.
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
    /// Reads what [`Display`](fmt::Display) writes. `None` when the kind is unknown, or the name is not in
    /// canonical spelling.
    pub fn from_canonical(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let kind = CertificateNameKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        Self::new(kind, name).ok().filter(|read| *read.text == *name)
    }
}

/// All names of a certificate that was verified. Make one only after the TLS handshake: it checks that a
/// trusted authority signed the certificate and that the peer has its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames(Vec<CertificateName>);

/// The bytes are not an X.509 certificate, or its names cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCertificate;

impl fmt::Display for InvalidCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an X.509 certificate, or its names cannot be read")
    }
}

impl std::error::Error for InvalidCertificate {}

impl CertificateNames {
    /// Reads the names of a certificate in DER. It skips names that no [`CertificateName`] can equal, such as
    /// wildcards.
    ///
    /// # Errors
    /// When the bytes are not a certificate, or its names cannot be read.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let certificate = Certificate::from_der(der).map_err(|_| InvalidCertificate)?;
        let certificate = certificate.tbs_certificate();
        let alternative =
            certificate.get_extension::<SubjectAltName>().map_err(|_| InvalidCertificate)?;
        let mut names = Vec::new();
        // A certificate may have an empty subject (RFC 5280 §4.1.2.6). That is not a name.
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
    // A name must read back as it was printed; otherwise it would have two spellings. The parser also
    // accepts a lone backslash at the end of the text, which RFC 4514 §3 does not allow.
    let again = printed(&Name::from_str(&name).ok()?)?;
    let trailing = text.bytes().rev().take_while(|byte| *byte == b'\\').count();
    (again == name && trailing % 2 == 0).then_some(name)
}

/// Writes a subject as RFC 4514 §2 does. The string types that the certificate uses make no difference.
/// `None` when the subject is empty or has a part without attributes.
fn printed(subject: &Name) -> Option<String> {
    if subject.is_empty() {
        return None;
    }
    let mut relative_names = Vec::with_capacity(subject.len());
    // RFC 4514 §2.1: the relative names are written in reverse order, the last one first.
    for relative_name in subject.as_ref().iter().collect::<Vec<_>>().into_iter().rev() {
        let attributes: Option<Vec<String>> = relative_name.iter().map(attribute).collect();
        // The attributes are a set, and its order in DER depends on the string types. Sorting removes that.
        let mut attributes = attributes.filter(|attributes| !attributes.is_empty())?;
        attributes.sort_unstable();
        relative_names.push(attributes.join("+"));
    }
    Some(relative_names.join(","))
}

fn attribute(attribute: &AttributeTypeAndValue) -> Option<String> {
    let text = attribute.to_string();
    let read = AttributeTypeAndValue::from_str(&text).ok()?;
    // If the printed short name read back as another attribute type, one subject could pass for another.
    // The type is then written as its OID, and the value in hexadecimal.
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
    fn equal_distinguished_names_get_the_same_spelling() {
        for same in ["CN=a\\,b,O=E", "cn=a\\2cb,o=E", "commonName=a\\2Cb,O=\\45"] {
            assert_eq!(subject(same).as_deref(), Some(r"CN=a\,b,O=E"), "{same}");
        }
        assert_eq!(subject("CN=\\ a\\ ,O=E").as_deref(), Some(r"CN=\ a\ ,O=E"));
        // The attributes of one relative name are a set.
        assert_eq!(subject("OU=x+CN=a,O=E"), subject("CN=a+OU=x,O=E"));
        assert_ne!(subject("CN=a,O=E"), subject("O=E,CN=a"));
        assert_ne!(subject("CN=a"), subject("CN=A"));
        for bad in ["CN=a\\", "CN=a\\\\\\", "CN", "", "CN=a,", "X=a", "CN=\\zz"] {
            assert_eq!(subject(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_subject_matches_whatever_string_types_the_certificate_uses() {
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
        // The attribute type has no short name; its value is the value of a common name.
        let custom = names_of(&[(
            DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]),
            DnValue::Utf8String("a".to_owned()),
        )]);
        assert!(!custom.contains(&name("CN=a")));
        assert!(custom.contains(&name("1.3.6.1.4.1.99999.1=a")), "{custom:?}");
    }

    #[test]
    fn bytes_that_are_not_a_certificate_are_refused() {
        assert_eq!(CertificateNames::from_der(b""), Err(InvalidCertificate));
        assert_eq!(CertificateNames::from_der(&[0x30, 0]), Err(InvalidCertificate));
    }

    #[test]
    fn an_empty_subject_is_not_a_name() {
        let empty = names_of(&[]);
        assert_eq!(empty.0, []);
    }
}
