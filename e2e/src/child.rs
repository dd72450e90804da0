//! Programs that a test starts beside itself. They die with it, even when it crashes.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context, Result, bail};

/// `setpriv` sets the parent-death signal, which only unsafe code could set from here.
pub(crate) fn dying_with_parent(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Starts `command` from a thread that lives as long as the program, since the signal follows the thread. Gives the process id, which
/// setpriv passes on to what it starts.
pub(crate) fn launch(mut command: Command, log: PathBuf) -> Result<u32> {
    let (started, outcome) = mpsc::channel();
    thread::spawn(move || {
        let spawned = File::create(&log).and_then(|file| {
            let errors = file.try_clone()?;
            command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn()
        });
        match spawned {
            Ok(mut child) => {
                let _ = started.send(Ok(child.id()));
                let _ = child.wait();
                loop {
                    thread::park();
                }
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    });
    outcome.recv()?.context("setpriv (package util-linux) could not start it")
}

/// Ports that are free now, below those that the kernel gives to clients: none of them can take one before it is used.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    [(); N].map(|()| {
        loop {
            let next =
                std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
            let port = 20_000 + (next % 12_000) as u16;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// What a script of the checkout prints as its last line: the path of a tool, which it installs first where it is missing.
pub(crate) fn path_from(script: &str, arguments: &[&str]) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(&script)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} cannot be run", script.display()))?;
    if !output.status.success() {
        bail!("{} failed: see its output above", script.display());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(PathBuf::from(text.lines().last().context("no path was printed")?.trim()))
}
