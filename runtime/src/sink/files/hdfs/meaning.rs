//! What an error of HDFS means, in the kinds that [`Storage`](super::Storage) promises. A kind that says that something is
//! there, or is not, comes from the NameNode alone, never from a network. The server's own words end at their first
//! line: behind it are its stacks.

use std::io::{Error, ErrorKind};

use hdfs_native::HdfsError;

/// The NameNode is in safe mode.
const SAFE_MODE: ErrorKind = ErrorKind::ReadOnlyFilesystem;

/// It leads nobody at the moment, or is starting.
const NOT_NOW: ErrorKind = ErrorKind::ResourceBusy;

/// As an error of the storage.
pub(super) fn of(error: HdfsError) -> Error {
    match error {
        HdfsError::RPCError(class, text) | HdfsError::FatalRPCError(class, text) => refused(&class, &text),
        HdfsError::AlreadyExists(text) => told(ErrorKind::AlreadyExists, "", &text),
        HdfsError::FileNotFound(text) => told(ErrorKind::NotFound, "there is no ", &text),
        HdfsError::IsADirectoryError(text) => told(ErrorKind::IsADirectory, "a directory: ", &text),
        HdfsError::DataTransferError(text) => told(ErrorKind::Other, "a DataNode failed: ", &text),
        HdfsError::IOError(error) => told(of_network(error.kind()), "no connection: ", &error.to_string()),
        HdfsError::SASLError(_) | HdfsError::GSSAPIError(..) | HdfsError::NoSASLMechanism => {
            told(ErrorKind::PermissionDenied, "", &error.to_string())
        }
        HdfsError::UnsupportedFeature(text) => told(ErrorKind::InvalidData, "", &text),
        other => told(ErrorKind::Other, "", &other.to_string()),
    }
}

/// Who refuses, by the class of what was thrown.
fn refused(class: &str, text: &str) -> Error {
    let name = class.rsplit(['.', '$']).next().unwrap_or(class);
    let (kind, what) = match name {
        "SafeModeException" => (SAFE_MODE, "the NameNode is in safe mode: "),
        "RetriableException" if text.contains("safe mode") => (SAFE_MODE, "the NameNode is in safe mode: "),
        "StandbyException" | "ObserverRetryOnActiveException" => (NOT_NOW, "no NameNode is active: "),
        "RetriableException" => (NOT_NOW, "the NameNode is not ready: "),
        "AccessControlException"
        | "AuthorizationException"
        | "SaslException"
        | "GSSException"
        | "InvalidToken" => (ErrorKind::PermissionDenied, ""),
        "NSQuotaExceededException"
        | "DSQuotaExceededException"
        | "QuotaByStorageTypeExceededException"
        | "MaxDirectoryItemsExceededException" => (ErrorKind::QuotaExceeded, "the quota is used up: "),
        "FileNotFoundException" => (ErrorKind::NotFound, ""),
        "ParentNotDirectoryException" => (ErrorKind::NotADirectory, ""),
        "InvalidPathException" | "PathComponentTooLongException" => (ErrorKind::InvalidFilename, ""),
        _ if text.contains("could only be written to") => {
            (ErrorKind::Other, "no DataNode is up, or none has room: ")
        }
        _ => (ErrorKind::Other, ""),
    };
    told(kind, what, text)
}

/// A network says nothing about what is in HDFS, whatever it calls it.
fn of_network(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::TimedOut => kind,
        _ => ErrorKind::Other,
    }
}

fn told(kind: ErrorKind, what: &str, text: &str) -> Error {
    Error::new(kind, format!("{what}{}", text.lines().next().unwrap_or_default()))
}

/// Whether the NameNode did nothing and may do it in a moment.
pub(super) fn is_passing(error: &Error) -> bool {
    [SAFE_MODE, NOT_NOW].contains(&error.kind())
}

/// Whether sending a file once more cannot help before somebody does something.
pub(super) fn is_hopeless(error: &Error) -> bool {
    use ErrorKind::{
        InvalidData, InvalidFilename, NotADirectory, PermissionDenied, QuotaExceeded, StorageFull,
    };
    [InvalidData, InvalidFilename, NotADirectory, PermissionDenied, QuotaExceeded, StorageFull]
        .contains(&error.kind())
}

/// What to do about a cluster that cannot be opened.
pub(super) fn hint(error: &Error) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::PermissionDenied => {
            "the user is $HADOOP_USER_NAME, or who has the Kerberos ticket: give that user the right to write there"
        }
        _ if error.to_string().contains("No NameNode hosts found") => {
            "a NameNode is named with its port, such as `hdfs://namenode:8020`; the names of a service stand in the \
             hdfs-site.xml of $HADOOP_CONF_DIR"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(class: &str, text: &str) -> HdfsError {
        HdfsError::RPCError(class.to_owned(), text.to_owned())
    }

    #[test]
    fn what_the_namenode_says_has_a_kind_and_one_line() {
        let denied = "org.apache.hadoop.security.AccessControlException";
        let safe = "org.apache.hadoop.hdfs.server.namenode.SafeModeException";
        let quota = "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException";
        for (error, kind, text) in [
            (
                rpc(denied, "user=a, access=WRITE\n\tat org.a.B"),
                ErrorKind::PermissionDenied,
                "user=a, access=WRITE",
            ),
            (rpc(safe, "Cannot delete /a."), SAFE_MODE, "the NameNode is in safe mode: Cannot delete /a."),
            (
                rpc("org.apache.hadoop.ipc.RetriableException", "x: Name node is in safe mode"),
                SAFE_MODE,
                "the NameNode is in safe mode: x: Name node is in safe mode",
            ),
            (rpc("org.apache.hadoop.ipc.StandbyException", "no"), NOT_NOW, "no NameNode is active: no"),
            (rpc(quota, "/a: 1 B"), ErrorKind::QuotaExceeded, "the quota is used up: /a: 1 B"),
            (rpc("java.io.FileNotFoundException", "/a"), ErrorKind::NotFound, "/a"),
            (
                rpc("java.io.IOException", "/a could only be written to 0 of the 1 minReplication nodes"),
                ErrorKind::Other,
                "no DataNode is up, or none has room: /a could only be written to 0 of the 1 minReplication nodes",
            ),
            (HdfsError::AlreadyExists("b\r\n\tat".into()), ErrorKind::AlreadyExists, "b"),
        ] {
            let error = of(error);
            assert_eq!((error.kind(), &*error.to_string()), (kind, text));
        }
    }

    #[test]
    fn a_network_never_says_that_something_is_there_or_not() {
        for kind in
            [ErrorKind::NotFound, ErrorKind::AlreadyExists, ErrorKind::PermissionDenied, SAFE_MODE, NOT_NOW]
        {
            assert_eq!(of(HdfsError::IOError(kind.into())).kind(), ErrorKind::Other);
        }
    }
}
