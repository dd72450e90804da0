//! What SideLB's users suffered from, as far as no other test here shows that it is over.

use serde_json::json;

use crate::support::{Backend, Sidecar, black_hole, refusing, until};

/// It asked one after the other, and waited for each: a dead server was found after minutes.
#[tokio::test]
async fn a_backend_that_answers_no_check_delays_the_checks_of_no_other() {
    let (one, _full) = black_hole().await;
    let (two, _full_too) = black_hole().await;
    let (dead, live) = (refusing().await, Backend::start(b'a').await);
    // Longer than a test may take.
    let fields = json!({"health": {"interval": "100ms", "timeout": "10m", "unhealthyThreshold": 1}});
    let sidecar = Sidecar::start(fields, &[one, two, dead, live.address]).await;
    until("the dead one is out", || sidecar.metric(&of("down_seconds_total", dead)) > 0.0).await;
    until("the live one is in", || sidecar.metric(&of("up", live.address)) > 0.5).await;
}

#[tokio::test]
async fn a_backend_that_answers_no_check_is_out_after_its_time_out() {
    let (hole, _full) = black_hole().await;
    let live = Backend::start(b'a').await;
    let fields = json!({"health": {"interval": "100ms", "timeout": "100ms", "unhealthyThreshold": 2}});
    let sidecar = Sidecar::start(fields, &[hole, live.address]).await;
    until("the silent one is out", || sidecar.metric(&of("down_seconds_total", hole)) > 0.0).await;
    for _ in 0..20 {
        assert_eq!(sidecar.greeted().await.1, b'a');
    }
}

/// It left its servers alone until each was checked: nothing was served for ten seconds.
#[tokio::test]
async fn a_backend_that_no_check_has_come_back_from_serves_from_the_start() {
    let (hole, _full) = black_hole().await;
    let live = Backend::start(b'a').await;
    let fields = json!({"health": {"port": hole.port(), "timeout": "10m"}});
    let sidecar = Sidecar::start(fields, &[live.address]).await;
    assert_eq!(sidecar.greeted().await.1, b'a');
}

fn of(what: &str, backend: std::net::SocketAddr) -> String {
    format!("sidecar_tcp_backend_{what}{{listener=\"db\",backend=\"{backend}\"")
}
