use std::fmt;

use crate::imports;

/// What calls return.
pub type Result<T> = std::result::Result<T, Error>;

/// How a call failed. The numbers are those of docs/guest-abi.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// The arguments make no sense.
    InvalidRequest,
    /// This instance has no grant of that capability.
    UnknownGrant,
    /// Its grant does not allow this.
    PermissionDenied,
    /// The provider does not serve now.
    Unavailable,
    /// No outcome in time; a write may have been done.
    Timeout,
    /// There is no such key.
    NotFound,
    /// The key is not at that revision.
    Conflict,
    /// Too large, or too many.
    Exhausted,
    /// A fault on the other side.
    Internal,
    /// A status that this crate does not know.
    Other(i32),
}

/// Why a call came to nothing.
#[derive(Debug, Clone)]
pub struct Error {
    status: Status,
    message: String,
}

impl Error {
    /// How the call failed.
    pub fn status(&self) -> Status {
        self.status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(e: Error) -> Self {
        use std::io::ErrorKind::*;
        let kind = match e.status {
            Status::InvalidRequest => InvalidInput,
            Status::PermissionDenied | Status::UnknownGrant => PermissionDenied,
            Status::Timeout => TimedOut,
            Status::NotFound => NotFound,
            _ => Other,
        };
        std::io::Error::new(kind, e)
    }
}

/// Makes an error of what an import returned, if it is one.
pub(crate) fn called(value: i32) -> Result<i32> {
    if value >= 0 {
        return Ok(value);
    }
    let status = match value {
        -1 => Status::InvalidRequest,
        -2 => Status::UnknownGrant,
        -3 => Status::PermissionDenied,
        -4 => Status::Unavailable,
        -5 => Status::Timeout,
        -6 => Status::NotFound,
        -7 => Status::Conflict,
        -8 => Status::Exhausted,
        -9 => Status::Internal,
        other => Status::Other(other),
    };
    let message = String::from_utf8_lossy(&imports::result()).into_owned();
    Err(Error { status, message })
}
