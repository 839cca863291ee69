//! Words that users see in conditions, Events and statuses. Each word belongs to an enum, so the compiler knows all of
//! them. The index in docs/troubleshooting.md is generated from these enums.

/// A word that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word {
    /// The word itself: one CamelCase name.
    pub name: &'static str,
    /// Its meaning in one sentence, with the leading space of a documentation comment.
    meaning: &'static str,
}

impl Word {
    /// Creates a word; `meaning` is the text of a documentation comment.
    pub(crate) const fn new(name: &'static str, meaning: &'static str) -> Self {
        Self { name, meaning }
    }

    /// Returns itself, so that `words!` can call `word` on a `Word` as on an enum of words.
    pub(crate) const fn word(self) -> Self {
        self
    }

    /// Returns the meaning of the word, in one sentence.
    pub fn meaning(self) -> &'static str {
        self.meaning.trim()
    }
}

/// Declares an enum of words. A variant's documentation is the meaning of its word. Variants after a semicolon hold a
/// word of another enum.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $Name:ident {
            $($(#[doc = $doc:literal])+ $(#[serde $serde:tt])? $Variant:ident,)*
            $(; $($(#[doc = $of:literal])+ $Other:ident($Words:ty),)+)?
        }
    ) => {
        $(#[$meta])*
        pub enum $Name {
            $($(#[doc = $doc])+ $(#[serde $serde])? $Variant,)*
            $($($(#[doc = $of])+ $Other($Words),)+)?
        }

        impl $Name {
            /// The variants that have words of their own, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$Variant),*];
            /// The words of these variants.
            pub const WORDS: &'static [$crate::words::Word] = &[$(Self::$Variant.word()),*];

            /// Returns the word that users see.
            pub const fn word(self) -> $crate::words::Word {
                match self {
                    $(Self::$Variant => $crate::words::Word::new(stringify!($Variant), concat!($($doc),+)),)*
                    $($(Self::$Other(other) => other.word(),)+)?
                }
            }

            /// Returns the name that users see.
            pub const fn name(self) -> &'static str {
                self.word().name
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(crate) use words;
