//! Promises that hold while something of the cluster is away or changes. Each of these scenarios has the cluster alone.

mod api_server;
mod certificates;
mod operator_away;
mod rollout;
mod stream;
mod upgrade;
