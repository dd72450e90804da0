//! Server name -> which of the routes. Pure.

use std::collections::HashMap;

use crds::config::TcpRoute;

/// The names of all routes, each by the index of its route.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    whole: HashMap<String, usize>,
    /// All names below these.
    below: HashMap<String, usize>,
}

impl Names {
    pub(super) fn of(routes: &[TcpRoute]) -> Self {
        let mut names = Self::default();
        for (index, route) in routes.iter().enumerate() {
            for name in &route.server_names {
                let (kind, name) = match name.above() {
                    Some(above) => (&mut names.below, above),
                    None => (&mut names.whole, name.as_str()),
                };
                kind.insert(name.to_owned(), index);
            }
        }
        names
    }

    /// The route of a name in lower case: its own, or the one with the longest name above it.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let above = std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above));
        self.whole.get(name).or_else(|| above.skip(1).find_map(|above| self.below.get(above))).copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_goes_to_its_own_route_or_to_the_nearest_above_it() {
        let route = |names: &[&str]| -> TcpRoute {
            serde_json::from_value(json!({"name": "r", "serverNames": names, "backends": []})).unwrap()
        };
        let names = Names::of(&[
            route(&["a.example.com", "*.b.example.com"]),
            route(&["*.example.com"]),
            route(&["example.com", "x.b.example.com"]),
        ]);
        for (name, found) in [
            ("a.example.com", Some(0)),
            ("a.example.com.", Some(0)),
            ("y.b.example.com", Some(0)),
            ("z.y.b.example.com", Some(0)),
            ("b.example.com", Some(1)),
            ("other.a.example.com", Some(1)),
            ("x.b.example.com", Some(2)),
            ("example.com", Some(2)),
            ("com", None),
            ("aexample.com", None),
            ("", None),
        ] {
            assert_eq!(names.find(name), found, "{name:?}");
        }
    }
}
