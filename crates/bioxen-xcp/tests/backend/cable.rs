//! The wire between a controller and its guests, which can be cut.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes on what comes to a port of any loopback address to the port of SSH at the same address, until
/// it is dropped.
pub(crate) struct Cable {
    port: u16,
    cut: Arc<watch::Sender<u32>>,
    // Held: whoever passes things on ends with it.
    _passing: JoinSet<()>,
}

impl Cable {
    pub(crate) async fn to(ssh: u16) -> Self {
        let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(watch::Sender::new(0));
        let mut passing = JoinSet::new();
        let cuts = Arc::clone(&cut);
        passing.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let address = near.local_addr().unwrap().ip();
                let mut cuts = cuts.subscribe();
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect((address, ssh)).await else { return };
                    tokio::select! {
                        () = pass(near, far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { port, cut, _passing: passing }
    }

    /// Where it is entered.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all connections that there are. Later ones pass.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn pass(mut near: TcpStream, mut far: TcpStream) {
    // However it ends, both sides learn of it by the end of their streams.
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
}
