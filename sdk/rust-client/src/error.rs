//! One error type: a family per reaction of whoever catches it, a code, a message, a hint; and the names of
//! the wire's refusals.

use std::fmt;

use crate::value::{Map, Value};

/// What this crate's functions answer.
pub type Result<T> = std::result::Result<T, Error>;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// The work was tried and failed. Look at the reason, then try again.
    Failed,
    /// The input is wrong. Nothing was done; correct it.
    Usage,
    /// Nobody answers at the other end. Start it, or look at the address.
    Unreachable,
    /// Policy says no. Asking again changes nothing; the hint says who can change the policy.
    Refused,
    /// A person must decide first.
    Parked,
    /// Two things that must be equal are not: a replay, a chain, a digest.
    Divergence,
    /// The named thing does not exist here.
    NotFound,
    /// Somebody else changed it first. Read again, decide again.
    Conflict,
    /// None of these: a mistake of Runloop's own, or a family newer than this crate.
    Internal,
}

const FAMILIES: [(&str, Family); 9] = [
    ("failed", Family::Failed),
    ("usage", Family::Usage),
    ("unreachable", Family::Unreachable),
    ("refused", Family::Refused),
    ("parked", Family::Parked),
    ("divergence", Family::Divergence),
    ("not_found", Family::NotFound),
    ("conflict", Family::Conflict),
    ("internal", Family::Internal),
];

impl Family {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        FAMILIES.iter().find(|row| row.1 == self).map_or("internal", |row| row.0)
    }
}

macro_rules! named {
    ($($name:ident $code:literal $doc:literal),* $(,)?) => {
        /// A refusal of the wire; its name is the same in every language.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Named {
            $(#[doc = $doc] $name,)*
        }

        impl Named {
            /// Every refusal, in the order of the specification.
            pub const ALL: &'static [Named] = &[$(Named::$name),*];

            /// Such as `BodyTooLarge`.
            pub fn name(self) -> &'static str {
                match self { $(Named::$name => stringify!($name),)* }
            }

            /// Such as `wire.body_too_large`.
            pub fn code(self) -> &'static str {
                match self { $(Named::$name => $code,)* }
            }
        }
    };
}

named! {
    InvalidMagic "wire.invalid_magic" "The header does not begin with `RMP0`.",
    UnsupportedVersion "wire.unsupported_version" "A header version this build does not know.",
    TruncatedHeader "wire.truncated_header" "Less than a header is promised, or came.",
    InvalidHeaderFlags "wire.invalid_header_flags" "Flags or a reserved field are not zero.",
    LengthMismatch "wire.length_mismatch" "Two lengths of one frame contradict each other.",
    UnknownSchema "wire.unknown_schema" "A schema id or type that is not in the registry.",
    BodyTooLarge "wire.body_too_large" "The prefix promises more than the cap. Nothing of it was buffered.",
    InvalidTtl "wire.invalid_ttl" "A time to live of 0.",
    InvalidExpiry "wire.invalid_expiry" "Creation and time to live together do not fit in 64 bits.",
    Expired "wire.expired" "The frame's time to live is over.",
    Duplicate "wire.duplicate" "The same publisher already sent this trace and message id.",
    BodyDecodeError "wire.body_decode" "The body is not a legal envelope.",
    BodyTypeMismatch "wire.body_type_mismatch" "The type is not what the schema id stands for.",
    Incomplete "wire.incomplete" "Not an offence: the bytes end before the frame does.",
}

/// What went wrong and how to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What to do next.
    pub family: Family,
    /// Stable, for programs: `client.lost`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The next thing to type or change.
    pub hint: Option<String>,
    /// What the daemon attached.
    pub data: Map,
    named: Option<Named>,
}

impl Error {
    /// An error of a family.
    pub fn new(family: Family, code: &str, message: impl Into<String>) -> Error {
        Error {
            family,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            data: Map::new(),
            named: None,
        }
    }

    /// A named refusal.
    pub fn refusal(named: Named, message: impl Into<String>) -> Error {
        Error { named: Some(named), ..Error::new(Family::Usage, named.code(), message) }
    }

    /// The same with a way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Which refusal of the wire it is, if it is one.
    pub fn named(&self) -> Option<Named> {
        self.named
    }

    /// The error that the daemon sent as `{code, family, message, hint, data}`.
    pub fn from_wire(sent: &Value) -> Error {
        let text = |key: &str| sent.get(key).and_then(Value::as_str);
        let family =
            FAMILIES.iter().find(|row| Some(row.0) == text("family")).map_or(Family::Internal, |row| row.1);
        let code = text("code").filter(|code| !code.is_empty()).unwrap_or_else(|| family.name());
        Error {
            hint: text("hint").map(str::to_owned),
            data: sent.get("data").and_then(Value::as_map).cloned().unwrap_or_default(),
            ..Error::new(family, code, text("message").unwrap_or("unknown error"))
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(to, "; {}", hint))
    }
}

impl std::error::Error for Error {}
