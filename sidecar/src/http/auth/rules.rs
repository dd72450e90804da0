//! Who is let in: a client by any of its names, and by the claims of its token. Pure.

use crds::config::{AllowRule, ClaimRule};

use super::{jwt::Claims, name::Name};

/// The allow rules of a listener. Without any, all that are known are let in.
#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    names: Vec<Name>,
    claims: Vec<Wanted>,
}

/// One of these values of a claim.
#[derive(Debug)]
struct Wanted {
    claim: String,
    values: Vec<Name>,
}

impl Rules {
    pub(super) fn new(rules: &[AllowRule]) -> Self {
        let wanted = |rule: &ClaimRule| Wanted {
            claim: rule.claim.clone(),
            values: rule.values.iter().map(|value| Name::of(value)).collect(),
        };
        let rule = |rule: &AllowRule| Rule {
            names: rule.names.iter().map(|name| Name::of(name)).collect(),
            claims: rule.claims.iter().map(wanted).collect(),
        };
        Self(rules.iter().map(rule).collect())
    }

    /// `claims` are those of the client's token, if it has one.
    pub(super) fn allow(&self, names: &[&str], claims: Option<&Claims>) -> bool {
        self.0.is_empty() || self.0.iter().any(|rule| rule.allows(names, claims))
    }
}

impl Rule {
    fn allows(&self, names: &[&str], claims: Option<&Claims>) -> bool {
        let named = self.names.is_empty()
            || names.iter().any(|name| self.names.iter().any(|known| known.matches(name)));
        let said = |wanted: &Wanted| claims.is_some_and(|claims| wanted.is_in(claims));
        named && self.claims.iter().all(said)
    }
}

impl Wanted {
    fn is_in(&self, claims: &Claims) -> bool {
        let good = |value: &str| self.values.iter().any(|wanted| wanted.matches(value));
        claims.values(&self.claim).iter().any(|value| good(value))
    }
}
