//! A testbed: some clusters that start together and end together.

use std::sync::Arc;

use anyhow::Context as _;
use futures::future::try_join_all;

use crate::{
    cluster::Cluster,
    node::{self, Node},
    programs::{Program, Programs, ProgramsError},
    run_dir::RunDir,
    skip,
};

/// What a testbed consists of.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many clusters; each takes about 500 MB.
    pub clusters: usize,
    /// Whether the first cluster gets a node, so that its pods run. It needs root and more, see [`node`], and there
    /// is one a machine.
    pub node: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { clusters: 1, node: false }
    }
}

impl Options {
    /// The programs that such a testbed runs.
    pub fn programs(self) -> Vec<Program> {
        let node = if self.node { Program::NODE } else { &[] };
        [Program::CONTROL_PLANE, node].concat()
    }
}

/// Running clusters. They end, and their folder goes, when this is dropped. A testbed in a `static` is never dropped:
/// its programs die with the process all the same, and the next start removes its folder.
pub struct Testbed {
    /// The node of the first cluster, when one was asked for.
    pub node: Option<Node>,
    /// The clusters, `cluster-1` first.
    pub clusters: Vec<Cluster>,
    // Last, so that it outlives the clusters.
    run: Arc<RunDir>,
}

impl Testbed {
    /// Builds what is missing and starts the clusters, all at once.
    ///
    /// # Errors
    /// When the programs cannot be built or a cluster does not come up.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let programs = Programs::ensure(&options.programs()).await?;
        Self::start_in(RunDir::create()?, &programs, options).await
    }

    /// As [`Testbed::start`], for the test named `test`: without Go, and without programs in the cache, the test is
    /// reported as skipped and gets `None`.
    ///
    /// # Errors
    /// As [`Testbed::start`].
    pub async fn start_or_skip(test: &str, options: Options) -> anyhow::Result<Option<Self>> {
        match Programs::ensure(&options.programs()).await {
            Ok(programs) => Self::start_in(RunDir::create()?, &programs, options).await.map(Some),
            Err(error @ ProgramsError::NoGo { .. }) => {
                skip::report(test, &error.to_string());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Starts the clusters in a run folder that the testbed takes over.
    ///
    /// # Errors
    /// When a cluster does not come up.
    pub async fn start_in(run: RunDir, programs: &Programs, options: Options) -> anyhow::Result<Self> {
        let run = Arc::new(run);
        let starts = (1..=options.clusters).map(|number| {
            let run = &run;
            let with_node = options.node && number == 1;
            async move { Cluster::start(run, programs, &format!("cluster-{number}"), with_node).await }
        });
        let clusters = try_join_all(starts).await?;
        let node = match clusters.first() {
            Some(first) if options.node => Some(node::join(first, programs).await.context("cannot add a node")?),
            _ => None,
        };
        Ok(Self { node, clusters, run })
    }

    /// The run folder.
    pub fn run(&self) -> &RunDir {
        &self.run
    }
}
