//! Passwords of users: never any by default, and never as they are.

use std::fmt;
use std::str::FromStr;

use sha_crypt::{PasswordHasher as _, ShaCrypt};
use xenapi::Secret;

use super::setting::InvalidSetting;

/// Bytes of a salt: sixteen characters when written, which is all that `crypt` looks at.
const SALT: usize = 12;

/// The forms of hashes that are taken: SHA-256, SHA-512, bcrypt and yescrypt.
const FORMS: [&str; 6] = ["$5$", "$6$", "$2a$", "$2b$", "$2y$", "$y$"];

/// A password as guests keep it: hashed in one of the forms of `crypt`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

/// Why a password could not be hashed.
#[derive(Debug, thiserror::Error)]
#[error("no random salt could be had")]
pub struct NoSalt(#[from] getrandom::Error);

impl PasswordHash {
    /// Takes a hash as `mkpasswd` and `openssl passwd -6` print it: SHA-256, SHA-512, bcrypt or
    /// yescrypt.
    pub fn new(hash: &str) -> Result<Self, InvalidSetting> {
        let invalid = |reason| Err(InvalidSetting::hidden("password hash", reason));
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"./$=,".contains(&byte);
        if !FORMS.iter().any(|form| hash.starts_with(form)) {
            return invalid("it starts with none of $5$, $6$, $2a$, $2b$, $2y$ and $y$");
        }
        let parts = hash.split('$').filter(|part| !part.is_empty()).count();
        let short = parts < 3 || hash.rsplit('$').next().is_none_or(|last| last.len() < 31);
        if !hash.bytes().all(is_part) || short || hash.len() > 256 {
            return invalid("it is damaged");
        }
        Ok(Self(hash.to_owned()))
    }

    /// Hashes a password with SHA-512 and a random salt. The same password gives another hash each
    /// time: keep the hash where the same seed has to be made again.
    pub fn sha512(password: &Secret) -> Result<Self, NoSalt> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt)?;
        Ok(Self::sha512_with_salt(password, &salt))
    }

    /// Hashes a password with SHA-512 and this salt.
    #[expect(clippy::missing_panics_doc, reason = "the parameters are the crate's own")]
    pub fn sha512_with_salt(password: &Secret, salt: &[u8; SALT]) -> Self {
        let hash = ShaCrypt::SHA512.hash_password_with_salt(password.expose().as_bytes(), salt);
        Self(hash.expect("a salt of this length is taken").as_str().to_owned())
    }

    /// The hash itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for PasswordHash {
    type Err = InvalidSetting;
    fn from_str(hash: &str) -> Result<Self, InvalidSetting> {
        Self::new(hash)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// When a password has to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// When it is first used. Guests older than cloud-init 22.3 cannot do this, and set no password.
    AtFirstLogin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hashed_as_crypt_does_it() {
        // Computed by glibc's `crypt` with the same salt.
        let expected = "$6$rounds=5000$5Qk/5Qk/5Qk/5Qk/$L2B04InXglgvoKf9SR.QAC7x7X0Ra6SiESjoH7x4t7o4CYAdf5AwUBO5T.7fj97xzWQL5VYeW7nZp7Kq3rVsL0";
        let hash = PasswordHash::sha512_with_salt(&"open sesame".into(), &[7; SALT]);
        assert_eq!(hash.expose(), expected);
        assert_eq!(PasswordHash::new(hash.expose()).unwrap(), hash);
    }

    #[test]
    fn the_same_password_is_hashed_differently_each_time() {
        let secret = Secret::from("open sesame");
        assert_ne!(PasswordHash::sha512(&secret).unwrap(), PasswordHash::sha512(&secret).unwrap());
    }

    #[test]
    fn a_password_that_is_not_hashed_is_refused_and_not_repeated() {
        let weak = "$1$abcdefgh$G//4keteveJp0qb8z2DxG/";
        for text in ["hunter2", "", "$6$", "$6$salt$short", weak, "$6$salt$hash:0:0\nroot::"] {
            let error = PasswordHash::new(text).unwrap_err().to_string();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_hash_is_not_shown() {
        let hash = PasswordHash::sha512_with_salt(&"open sesame".into(), &[7; SALT]);
        assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
    }
}
