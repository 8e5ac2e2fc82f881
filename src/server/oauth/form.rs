//! Forms (`application/x-www-form-urlencoded`) as OAuth 2.0 sends them (RFC 6749 Appendix B), read
//! strictly: what two parsers could read differently is refused.

use std::fmt;

use zeroize::Zeroizing;

/// The parameters of a request. Empty ones count as absent (RFC 6749 §3.1).
///
/// Values may be secrets: they are overwritten when the form is dropped, and `Debug` shows only how
/// many there are.
pub struct Form(Vec<Parameter>);

struct Parameter {
    name: Zeroizing<String>,
    value: Zeroizing<String>,
}

/// Why bytes are not a form. What was sent is not repeated: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormError {
    /// More parameters than [`Form::MAX_PARAMETERS`].
    TooManyParameters,
    /// A `%` without two hexadecimal digits after it.
    BadPercentEncoding,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A NUL character.
    Nul,
    /// A parameter other than `resource` (RFC 8707 §2) stands twice.
    Repeated,
}

impl FormError {
    /// What the sender is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooManyParameters => "the request has more than 64 parameters",
            Self::BadPercentEncoding => "a percent sign is not followed by two hexadecimal digits",
            Self::NotUtf8 => "the parameters are not UTF-8",
            Self::Nul => "a parameter holds a NUL character",
            Self::Repeated => "a parameter is repeated; only resource may be",
        }
    }
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for FormError {}

impl Form {
    /// How many parameters a form can have.
    pub const MAX_PARAMETERS: usize = 64;

    /// Reads a form.
    ///
    /// ```
    /// use countersign::server::Form;
    /// let form = Form::parse(b"grant_type=client_credentials&scope=stock%3Aread+ping&audience=")?;
    /// assert_eq!(form.get("scope"), Some("stock:read ping"));
    /// assert_eq!(form.get("audience"), None);
    /// # Ok::<(), countersign::server::FormError>(())
    /// ```
    ///
    /// # Errors
    /// See [`FormError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormError> {
        let mut parameters: Vec<Parameter> = Vec::new();
        for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            if parameters.len() == Self::MAX_PARAMETERS {
                return Err(FormError::TooManyParameters);
            }
            let equals = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = equals.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            let (name, value) = (decode(name)?, decode(value)?);
            // Even when one of them is empty: another parser may take the other for the one that is meant.
            if name.as_str() != "resource" && parameters.iter().any(|known| known.name == name) {
                return Err(FormError::Repeated);
            }
            parameters.push(Parameter { name, value });
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter; of a repeated one, the first.
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// The values of a parameter, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |parameter| parameter.name.as_str() == name);
        named.map(|parameter| parameter.value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether a parameter is there, empty or not.
    pub(super) fn mentions(&self, name: &str) -> bool {
        self.0.iter().any(|parameter| parameter.name.as_str() == name)
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form({} parameters)", self.0.len())
    }
}

/// Undoes the encoding of one name or value: `+` is a space, `%` begins a byte.
///
/// # Errors
/// When it is not well encoded, not UTF-8, or holds a NUL.
pub(super) fn decode(encoded: &[u8]) -> Result<Zeroizing<String>, FormError> {
    // Decoding never makes a text longer, so that the buffer does not move and leave a copy of a secret behind.
    let mut decoded = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut bytes = encoded.iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(FormError::BadPercentEncoding),
            },
            byte => *byte,
        });
    }
    if decoded.contains(&0) {
        return Err(FormError::Nul);
    }
    match String::from_utf8(std::mem::take(&mut *decoded)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(FormError::NotUtf8)
        }
    }
}

fn digit(byte: Option<&u8>) -> Option<u8> {
    match byte? {
        byte @ b'0'..=b'9' => Some(byte - b'0'),
        byte @ b'a'..=b'f' => Some(byte - b'a' + 10),
        byte @ b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(bytes: &[u8]) -> FormError {
        Form::parse(bytes).expect_err("it is no form")
    }

    #[test]
    fn text_is_decoded_once() {
        let form = Form::parse(b"a=%2B+%2b&%62=%25&c=d=e&f=%C3%A4").expect("a form");
        assert_eq!(form.get("a"), Some("+ +"));
        assert_eq!(form.get("b"), Some("%"));
        assert_eq!(form.get("c"), Some("d=e"));
        assert_eq!(form.get("f"), Some("\u{e4}"));
    }

    #[test]
    fn what_is_empty_is_absent() {
        for empty in ["", "&&", "a", "a=", "b=c"] {
            assert_eq!(Form::parse(empty.as_bytes()).expect("a form").get("a"), None, "{empty}");
        }
    }

    #[test]
    fn bad_encoding_is_refused() {
        for bad in ["a=%", "a=%4", "a=%4g", "a=% 41", "%=a", "a=%%41", "a=%+41"] {
            assert_eq!(refusal(bad.as_bytes()), FormError::BadPercentEncoding, "{bad}");
        }
        for bad in ["a=%FF", "a=%C3", "%ED%A0%80=a", "a=%C0%80"] {
            assert_eq!(refusal(bad.as_bytes()), FormError::NotUtf8, "{bad}");
        }
        assert_eq!(refusal(b"a=\xff"), FormError::NotUtf8);
        assert_eq!(refusal(b"a=%00"), FormError::Nul);
        assert_eq!(refusal(b"a\0=b"), FormError::Nul);
    }

    #[test]
    fn only_resource_is_repeated() {
        let form = Form::parse(b"resource=a&resource=&resource=b").expect("a form");
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["a", "b"]);
        for bad in ["a=b&a=b", "a=b&%61=c", "a&a", "a=&a=b", "Resource=a&Resource=b"] {
            assert_eq!(refusal(bad.as_bytes()), FormError::Repeated, "{bad}");
        }
        Form::parse(b"a=b&A=b").expect("names differ in case");
    }

    #[test]
    fn sixty_four_parameters_are_the_most() {
        let form = |count| (0..count).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
        Form::parse(form(64).as_bytes()).expect("as many as there may be");
        assert_eq!(refusal(form(65).as_bytes()), FormError::TooManyParameters);
        assert_eq!(refusal(&b"resource=a&".repeat(65)), FormError::TooManyParameters);
    }

    #[test]
    fn debug_shows_no_value() {
        let form = Form::parse(b"client_secret=hush").expect("a form");
        assert_eq!(format!("{form:?}"), "Form(1 parameters)");
    }

    /// Every byte percent-encoded or every space a plus: written without a look at the parser.
    fn encode(text: &str, everything: bool) -> String {
        text.bytes()
            .map(|byte| match byte {
                b' ' if !everything => "+".to_owned(),
                byte if !everything && byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02x}"),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_form_or_are_not(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(form) = Form::parse(&bytes) {
                prop_assert!(form.0.len() <= Form::MAX_PARAMETERS);
                prop_assert!(form.0.iter().all(|parameter| !parameter.value.contains('\0')));
            }
        }

        #[test]
        fn what_another_encoder_writes_is_read(
            pairs in proptest::collection::btree_map("[^\0]{1,12}", "[^\0]{1,24}", 0..12),
            everything: bool,
        ) {
            let body = pairs
                .iter()
                .map(|(name, value)| {
                    format!("{}={}", encode(name, everything), encode(value, everything))
                })
                .collect::<Vec<_>>()
                .join("&");
            let form = Form::parse(body.as_bytes()).expect("well encoded");
            for (name, value) in &pairs {
                prop_assert_eq!(form.get(name), Some(value.as_str()));
            }
        }
    }
}
