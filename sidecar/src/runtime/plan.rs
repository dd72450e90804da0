//! Which listeners to open, update and close to get from one configuration to the next. Pure.
//!
//! A listener is the same while kind, name, address and port are: that is what an update leaves as it is. New sockets are opened before old ones are closed, except where the old one is in the way.

use crate::config::CheckedListener;

/// Steps, in the order in which they are taken. `usize`s point into the lists that were compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// New listeners that nothing is in the way of.
    pub(super) open: Vec<usize>,
    /// Running listeners that must be closed before `replace` can be opened.
    pub(super) make_way: Vec<usize>,
    /// New listeners that take an address from a listener that goes.
    pub(super) replace: Vec<usize>,
    /// Running and new position of listeners that change in place.
    pub(super) update: Vec<(usize, usize)>,
    /// Running and new position of listeners that stay as they are.
    pub(super) keep: Vec<(usize, usize)>,
    /// Running listeners that go.
    pub(super) close: Vec<usize>,
}

pub(super) fn plan(running: &[&CheckedListener], wanted: &[CheckedListener]) -> Plan {
    let mut plan = Plan::default();
    let (stay, go): (Vec<usize>, Vec<usize>) =
        (0..running.len()).partition(|&old| wanted.iter().any(|new| running[old].is_same(new)));
    for (new, listener) in wanted.iter().enumerate() {
        if let Some(&old) = stay.iter().find(|&&old| running[old].is_same(listener)) {
            let steps = if running[old] == listener { &mut plan.keep } else { &mut plan.update };
            steps.push((old, new));
            continue;
        }
        let in_the_way = |old: &&usize| listener.excludes(running[**old]);
        let obstacles: Vec<usize> = go.iter().filter(in_the_way).copied().collect();
        if obstacles.is_empty() {
            plan.open.push(new);
        } else {
            plan.replace.push(new);
            plan.make_way.extend(obstacles);
        }
    }
    plan.make_way.sort_unstable();
    plan.make_way.dedup();
    plan.close = go.into_iter().filter(|old| !plan.make_way.contains(old)).collect();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    /// Listeners by name, address and backend port.
    fn listeners(list: &[(&str, &str, u16)]) -> Vec<CheckedListener> {
        let items: Vec<_> = list
            .iter()
            .map(|(name, address, backend)| {
                let (ip, port) = address.rsplit_once(':').unwrap();
                let sites = serde_json::json!([
                    {"name": "s", "backends": [{"addresses": [format!("10.0.0.1:{backend}")]}]}
                ]);
                serde_json::json!({"name": name, "address": ip, "port": port.parse::<u16>().unwrap(), "sites": sites})
            })
            .collect();
        let text = serde_json::json!({ "http": items }).to_string();
        load(text.as_bytes(), "127.0.0.1:1".parse().unwrap()).unwrap().config.listeners().to_vec()
    }

    #[test]
    fn listeners_change_with_the_least_that_must_change() {
        let running =
            listeners(&[("a", "127.0.0.1:100", 1), ("b", "127.0.0.1:200", 1), ("c", "127.0.0.1:300", 1)]);
        let running: Vec<_> = running.iter().collect();
        for (wanted, expected) in [
            // As it was, changed in place, new, gone.
            (
                listeners(&[("a", "127.0.0.1:100", 1), ("b", "127.0.0.1:200", 2), ("d", "127.0.0.1:400", 1)]),
                Plan {
                    keep: vec![(0, 0)],
                    update: vec![(1, 1)],
                    open: vec![2],
                    close: vec![2],
                    ..Plan::default()
                },
            ),
            // Another port: the new one is opened before the old one closes.
            (
                listeners(&[("a", "127.0.0.1:101", 1), ("b", "127.0.0.1:200", 1), ("c", "127.0.0.1:300", 1)]),
                Plan { keep: vec![(1, 1), (2, 2)], open: vec![0], close: vec![0], ..Plan::default() },
            ),
            // The same port on all addresses: the old one is in the way.
            (
                listeners(&[("a", "0.0.0.0:100", 1), ("b", "127.0.0.1:200", 1), ("c", "127.0.0.1:300", 1)]),
                Plan { keep: vec![(1, 1), (2, 2)], replace: vec![0], make_way: vec![0], ..Plan::default() },
            ),
            // Swapped ports.
            (
                listeners(&[("a", "127.0.0.1:200", 1), ("b", "127.0.0.1:100", 1)]),
                Plan { replace: vec![0, 1], make_way: vec![0, 1], close: vec![2], ..Plan::default() },
            ),
            (vec![], Plan { close: vec![0, 1, 2], ..Plan::default() }),
        ] {
            assert_eq!(plan(&running, &wanted), expected);
        }
    }
}
