//! Unix sockets that listen. The file stands for the socket: one that a dead process left is replaced, one that somebody
//! answers at is not, and ours goes when we close it.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::Path,
    sync::Arc,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::listen::BACKLOG;

/// As with a port of the loopback, everyone may connect; who shall not is kept out by the directory's mode.
const MODE: u32 = 0o666;

/// A listening socket and its file.
pub struct UnixSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket, removed when this is dropped.
pub(crate) struct SocketFile {
    path: Arc<Path>,
    /// Device and inode: another one's file at the same path is left alone.
    identity: (u64, u64),
}

impl UnixSocket {
    pub(super) fn bind(path: &Arc<Path>) -> io::Result<Self> {
        remove_dead(path)?;
        let socket = stream_socket()?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile { path: Arc::clone(path), identity: identity(&fs::symlink_metadata(path)?) };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        socket.listen(BACKLOG)?;
        Ok(Self { listener: socket.into(), file })
    }

    pub(super) fn path(&self) -> Arc<Path> {
        Arc::clone(&self.file.path)
    }

    pub(crate) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the file of a closed socket stays");
        }
    }
}

/// Removes the file of a socket that nobody listens at.
fn remove_dead(path: &Path) -> io::Result<()> {
    let in_use = |message| Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => in_use("there is a file that is no socket"),
        // Nonblocking, so that a full queue is an answer too.
        Ok(_) => match stream_socket()?.connect(&SockAddr::unix(path)?) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            _ => in_use("another process listens there"),
        },
    }
}

fn stream_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_the_dead_is_replaced_and_one_of_the_living_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path: Arc<Path> = directory.path().join("http.sock").into();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "it is left behind");
        let socket = UnixSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(UnixSocket::bind(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists(), "ours goes with us");
    }

    #[test]
    fn what_is_no_socket_of_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path: Arc<Path> = directory.path().join("http.sock").into();
        fs::write(&path, "mine").unwrap();
        assert_eq!(UnixSocket::bind(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        let socket = UnixSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
