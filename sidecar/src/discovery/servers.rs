//! The servers that a DNS name stands for: names -> addresses -> endpoints. What one look-up of several does not answer keeps
//! what it had.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};

use crds::{
    config::{DnsBackend, DnsGrouping, DnsRecord},
    units::Address,
};
use futures::{StreamExt, future::BoxFuture, stream};

use super::dns::{Answer, Lookup, LookupError, Service};
use crate::balance::Endpoint;

/// Addresses beyond this number are left out.
const MAX_ADDRESSES: usize = 1024;

/// Look-ups of one name that are under way at once.
const AT_ONCE: usize = 16;

/// Weights of SRV records are brought down to this, so that they can be multiplied with those of sources.
const HEAVIEST: u32 = 1_000;

/// What is remembered from one answer to the next.
#[derive(Debug, Default)]
pub(super) struct Servers {
    /// Names of addresses in reverse DNS.
    names: HashMap<IpAddr, String>,
}

impl Servers {
    /// `before` are the endpoints of the last answer.
    pub(super) async fn find(
        &mut self,
        lookup: &dyn Lookup,
        dns: &DnsBackend,
        before: &[Endpoint],
    ) -> Result<(Vec<Endpoint>, Duration), LookupError> {
        let known = addresses(before);
        let (mut endpoints, ttl) = match dns.record {
            DnsRecord::Addresses => {
                let Answer { addresses, ttl } = lookup.lookup(dns.host.as_str(), &known).await?;
                (addresses.into_iter().map(|ip| Endpoint::at((ip, dns.port))).collect(), ttl)
            }
            DnsRecord::Srv => services(lookup, dns.host.as_str(), &known).await?,
        };
        endpoints.truncate(MAX_ADDRESSES);
        if dns.group_by == DnsGrouping::ReverseName {
            self.name(lookup, &addresses(&endpoints)).await;
            endpoints = group(endpoints, &self.names);
        }
        Ok((endpoints, ttl))
    }

    /// Asks for the names of all addresses. One that does not answer now keeps the name that it had.
    async fn name(&mut self, lookup: &dyn Lookup, addresses: &[IpAddr]) {
        self.names.retain(|address, _| addresses.contains(address));
        let ask = |&address: &IpAddr| -> BoxFuture<'_, _> {
            Box::pin(async move { (address, lookup.reverse(address).await) })
        };
        let asked: Vec<_> = addresses.iter().map(ask).collect();
        let answers: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        for (address, answer) in answers {
            match answer {
                Ok(name) => drop(self.names.insert(address, name)),
                Err(LookupError::NoSuchName | LookupError::NoAddresses) => drop(self.names.remove(&address)),
                Err(error) => tracing::debug!(%address, %error, "reverse DNS does not answer"),
            }
        }
    }
}

/// Every address once.
fn addresses(endpoints: &[Endpoint]) -> Vec<IpAddr> {
    let all = endpoints.iter().flat_map(|endpoint| {
        let others = endpoint.others.iter().flat_map(|others| others.iter());
        std::iter::once(&endpoint.address).chain(others)
    });
    let mut all: Vec<_> = all.filter_map(|address| Some(address.ip()?.ip())).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The endpoints of the SRV records with the best priority that has any.
async fn services(
    lookup: &dyn Lookup,
    host: &str,
    known: &[IpAddr],
) -> Result<(Vec<Endpoint>, Duration), LookupError> {
    let (services, mut ttl) = lookup.services(host).await?;
    let mut by_priority: BTreeMap<u16, Vec<Service>> = BTreeMap::new();
    for service in services.into_iter().take(MAX_ADDRESSES) {
        by_priority.entry(service.priority).or_default().push(service);
    }
    let mut failed = LookupError::NoAddresses;
    for services in by_priority.values() {
        let heaviest = services.iter().map(|service| service.weight).max().unwrap_or(0);
        let asked: Vec<_> = services.iter().map(|service| ask(lookup, service, known)).collect();
        let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        let mut endpoints = Vec::new();
        for (service, answer) in answers {
            match answer {
                Ok(answer) => {
                    ttl = ttl.min(answer.ttl);
                    let weight = weight(service.weight, heaviest);
                    endpoints.extend(
                        answer
                            .addresses
                            .iter()
                            .map(|&ip| Endpoint { weight, ..Endpoint::at((ip, service.port)) }),
                    );
                }
                Err(error) => failed = error,
            }
        }
        if !endpoints.is_empty() {
            return Ok((endpoints, ttl));
        }
    }
    Err(failed)
}

fn ask<'a>(
    lookup: &'a dyn Lookup,
    service: &'a Service,
    known: &'a [IpAddr],
) -> BoxFuture<'a, (&'a Service, Result<Answer, LookupError>)> {
    Box::pin(async move { (service, lookup.lookup(&service.host, known).await) })
}

/// Zero is a very small chance, says RFC 2782, and the same for all where all are zero.
fn weight(weight: u16, heaviest: u16) -> u32 {
    let scaled = u32::from(weight) * HEAVIEST / u32::from(heaviest.max(1));
    if u32::from(heaviest) <= HEAVIEST { u32::from(weight).max(1) } else { scaled.max(1) }
}

/// Puts the addresses of one name and port together. The first one, in their order, stands for the server.
fn group(endpoints: Vec<Endpoint>, names: &HashMap<IpAddr, String>) -> Vec<Endpoint> {
    let mut groups: BTreeMap<(String, u16), Vec<Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        let Some(address) = endpoint.address.ip() else { continue };
        let name = names.get(&address.ip()).cloned().unwrap_or_else(|| address.ip().to_string());
        groups.entry((name, address.port())).or_default().push(endpoint);
    }
    let server = |mut members: Vec<Endpoint>| {
        members.sort_unstable();
        members.dedup_by(|a, b| a.address == b.address);
        let others: Vec<Address> = members.iter().skip(1).map(|member| member.address.clone()).collect();
        let first = members.into_iter().next()?;
        Some(Endpoint { others: (!others.is_empty()).then(|| others.into()), ..first })
    };
    groups.into_values().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(list: &[&str]) -> Vec<Endpoint> {
        list.iter().map(|address| Endpoint::at(address.parse::<Address>().unwrap())).collect()
    }

    #[test]
    fn addresses_of_one_name_are_one_server() {
        let names = [("10.0.0.1", "a."), ("fd00::1", "a."), ("10.0.0.2", "b.")];
        let names = names.map(|(ip, name)| (ip.parse().unwrap(), name.to_owned())).into();
        let grouped =
            group(endpoints(&["[fd00::1]:80", "10.0.0.2:80", "10.0.0.1:80", "10.0.0.3:80"]), &names);
        let shown: Vec<String> = grouped
            .iter()
            .map(|endpoint| {
                let others = endpoint.others.iter().flat_map(|others| others.iter());
                let all = std::iter::once(&endpoint.address).chain(others);
                all.map(Address::to_string).collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert_eq!(shown, ["10.0.0.3:80", "10.0.0.1:80 [fd00::1]:80", "10.0.0.2:80"]);
    }

    #[test]
    fn weights_of_records_stay_in_proportion() {
        assert_eq!([0, 1, 3].map(|one| weight(one, 3)), [1, 1, 3]);
        assert_eq!([0, 30_000, 60_000].map(|one| weight(one, 60_000)), [1, 500, 1_000]);
        assert_eq!(weight(0, 0), 1);
    }
}
