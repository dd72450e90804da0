//! SideLB's command lines, and what they come to.

use crds::units::Address;

use super::{arguments::*, config::config};
use crate::command::{Action, Command};

fn wanted(line: &str) -> Result<Wanted, ArgumentsError> {
    Wanted::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn sidelbs_command_lines_become_listeners() {
    for (line, expected) in [
        (
            "127.0.0.1:5432 ring_domain=db.example.com:5432 mode=round-robin proto=tcp",
            "{tcp: [{name: sidelb, address: 127.0.0.1, port: 5432, balance: RoundRobin, \
             backends: [{dns: {host: db.example.com, port: 5432, groupBy: ReverseName}}]}]}",
        ),
        (
            "[::1]:53 [fd00::1]:53 10.0.0.2:53 proto=UDP mode=least-connections",
            "{udp: [{name: sidelb, address: '::1', port: 53, balance: LeastConnections, \
             backends: [{addresses: ['[fd00::1]:53', '10.0.0.2:53']}]}]}",
        ),
        (
            "0.0.0.0:9000 backends=10.1.0.5:9001,10.1.0.6:9001 ring_domain=nodes.example.com:9002",
            "{tcp: [{name: sidelb, address: 0.0.0.0, port: 9000, balance: RoundRobin, backends: [\
             {addresses: ['10.1.0.5:9001', '10.1.0.6:9001']}, {dns: {host: nodes.example.com, port: 9002, groupBy: ReverseName}}]}]}",
        ),
    ] {
        let expected: crds::config::SidecarConfig = serde_yaml::from_str(expected).unwrap();
        assert_eq!(config(&wanted(line).unwrap()), expected, "{line}");
    }
}

#[test]
fn a_wrong_argument_is_told_with_what_to_write_instead() {
    for (line, hint) in [
        ("localhost:1 10.0.0.1:1", "127.0.0.1:5432"),
        ("127.0.0.1:5432", "add ring_domain=HOST:PORT"),
        ("127.0.0.1:5432 backends=", "add ring_domain=HOST:PORT"),
        ("127.0.0.1:5432 10.0.0.1", "addresses such as"),
        ("127.0.0.1:5432 10.0.0.1:0", "1 to 65535"),
        ("127.0.0.1:5432 backends=10.0.0.1:99999", "ip:port"),
        ("127.0.0.1:5432 backends=db:5432", "ring_domain=HOST:PORT"),
        ("127.0.0.1:5432 ring_domain=db", "ring_domain=db.example.com:5432"),
        ("127.0.0.1:5432 ring_domain=db:0", "ring_domain=db.example.com:5432"),
        ("127.0.0.1:5432 ring_domain=-db:5432", "DNS name"),
        ("127.0.0.1:5432 10.0.0.1:1 mode=fastest", "mode=round-robin"),
        ("127.0.0.1:5432 10.0.0.1:1 mode=random mode=random", "write it once"),
        ("127.0.0.1:5432 10.0.0.1:1 proto=sctp", "proto=tcp or proto=udp"),
        ("127.0.0.1:5432 10.0.0.1:1 colour=red", "known are"),
    ] {
        let error = wanted(line).unwrap_err().to_string();
        assert!(error.contains(hint), "{line}: {error}");
    }
}

#[test]
fn what_no_file_may_say_no_command_line_may_say() {
    let command = Command::read("sidelb 127.0.0.1:5432 127.0.0.1:5432".split(' ').map(Into::into)).unwrap();
    let Action::L4(arguments) = command.action else { panic!("not l4") };
    let error = arguments.document().unwrap_err().to_string();
    assert!(error.contains("the listener itself"), "{error}");
}

#[test]
fn each_address_is_a_backend() {
    let wanted = wanted("127.0.0.1:1 10.0.0.{1...3}:80").unwrap();
    let addresses: Vec<Address> =
        wanted.backends.iter().flat_map(|pattern| pattern.addresses().to_vec()).collect();
    assert_eq!(addresses.len(), 3);
}
