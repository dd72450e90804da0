//! The operator replaced under load.

use anyhow::{Result, ensure};
use e2e::{Operator, with_cluster_alone};
use kube::ResourceExt;

use crate::stream;

#[tokio::test]
async fn of_200_pods_created_while_the_operator_is_rolled_none_is_bare_and_none_refused() -> Result<()> {
    with_cluster_alone("rollout", async |ns| {
        ns.apply_policy(&stream::policy_for_stream()).await?;
        let operator = Operator::of(&ns.cluster);
        let before: Vec<String> = operator.pods().await?.iter().map(ResourceExt::name_any).collect();
        stream::created_during(ns, 200, operator.restart()).await?;
        let after = operator.pods().await?;
        ensure!(
            after.iter().all(|pod| !before.contains(&pod.name_any())),
            "every pod of the operator is new"
        );
        Ok(())
    })
    .await
}
