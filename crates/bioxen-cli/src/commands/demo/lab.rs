//! A simulated pool for as long as the demonstration lasts.
//!
//! It has a thread of its own, as a pool would have machines of its own.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use bioxen_xcp::{
    Configuration, PoolName, PoolSettings, SecretReference, TrustSettings, XcpngBackend,
};
use tempfile::TempDir;
use tokio::sync::oneshot;
use xenapi_sim::Pool;
use xenapi_sim::guest::ProcessOptions;

use crate::failure::Failure;

/// The template that machines are made from.
pub(super) const TEMPLATE: &str = "Debian 12 (cloud-init)";

/// The port of the guests' SSH servers, which anybody may have.
pub(super) const PORT: u16 = 2222;

/// The pool, until it is dropped.
pub(super) struct Lab {
    settings: PoolSettings,
    configuration: Configuration,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// Holds the password and the configuration.
    _directory: TempDir,
}

impl Lab {
    /// Starts it and waits until it listens.
    pub(super) async fn start() -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("bioxen-demo-").tempdir();
        let directory = directory.map_err(Failure::DemoData)?;
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("simulated-pool".into())
            .spawn(move || serve(tell, stopped))
            .map_err(Failure::Runtime)?;
        let served = told.await.unwrap_or_else(|_| Err("it ended".into()));
        let (url, password) = served.map_err(|why| Failure::DemoPool(io::Error::other(why)))?;
        let path = directory.path().join("password");
        std::fs::write(&path, password).map_err(Failure::DemoData)?;
        let password = format!("file:{}", path.display());
        let settings = PoolSettings {
            name: PoolName::new("demo").expect("a constant and valid name"),
            addresses: vec![url.parse().expect("a pool tells an address")],
            user: bioxen_xcp::DEFAULT_USER.into(),
            password: password
                .parse::<SecretReference>()
                .map_err(|error| Failure::DemoPool(io::Error::other(error.to_string())))?,
            trust: TrustSettings::Nothing,
            guests: bioxen_xcp::GuestSettings::default(),
        };
        let configuration = directory.path().join("config.toml");
        let mut configuration =
            Configuration::read(configuration).map_err(Failure::Configuration)?;
        configuration.add_pool(&settings).map_err(Failure::Configuration)?;
        let running = Some((stop, thread));
        Ok(Self { settings, configuration, running, _directory: directory })
    }

    /// Where VMs on it are made.
    pub(super) fn backend(&self) -> Arc<XcpngBackend> {
        Arc::new(XcpngBackend::builder(self.configuration.clone()).build())
    }

    /// How many VMs and how many disks it has.
    pub(super) async fn count(&self) -> Result<(usize, usize), Failure> {
        let client = self.settings.connect().await.map_err(Failure::Pool)?;
        let counted = async {
            let vms = client.vm().get_all_records().await?;
            let disks = client.vdi().get_all().await?.len();
            let is_vm = |vm: &&xenapi::vm::Record| !vm.is_a_template && !vm.is_control_domain;
            Ok((vms.values().filter(is_vm).count(), disks))
        };
        let counted = counted.await.map_err(|error| Failure::Pool(self.settings.failure(error)));
        if let Err(error) = client.close().await {
            tracing::debug!(%error, "could not log out");
        }
        counted
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // Its guests end with it.
            if thread.join().is_err() {
                tracing::warn!("the simulated pool did not end in good order");
            }
        }
    }
}

/// Serves the pool until it is told to stop.
fn serve(tell: oneshot::Sender<Result<(String, String), String>>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(error.to_string()))),
    };
    runtime.block_on(async {
        let options = ProcessOptions { ssh_port: Some(PORT), ..ProcessOptions::default() };
        match Pool::builder().http().process_guests(options).start().await {
            Ok(pool) => {
                let _ = tell.send(Ok((pool.url(), pool.password().to_owned())));
                // It ends when the sender is dropped too.
                let _ = stopped.await;
                pool.stop().await;
            }
            Err(error) => drop(tell.send(Err(error.to_string()))),
        }
    });
}
