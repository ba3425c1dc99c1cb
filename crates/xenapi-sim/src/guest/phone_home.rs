//! The call that a guest makes when it is done: what cloud-init's `phone_home` does.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::cloud_config::PhoneHome;

/// How long one try may take, and how long the guest waits after it.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(3);

/// What a guest knows of itself that can be posted, by name.
pub(super) type Facts = [(&'static str, String)];

/// Makes the call from an address of the guest's, as often as it takes; what is wrong if it came to nothing.
pub(super) async fn call(home: &PhoneHome, from: IpAddr, facts: &Facts) -> Result<(), String> {
    let mut last = String::new();
    for attempt in 0..home.tries.max(1) {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        last = match tokio::time::timeout(PATIENCE, post(home, from, facts)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "nobody answers".to_owned(),
        };
    }
    let PhoneHome { url, tries, .. } = home;
    Err(format!("Failed to post phone home data to {url} in {tries} tries: {last}"))
}

async fn post(home: &PhoneHome, from: IpAddr, facts: &Facts) -> io::Result<()> {
    let instance = facts.iter().find(|(name, _)| *name == "instance_id");
    let url = match instance {
        Some((_, id)) => home.url.replace("$INSTANCE_ID", id),
        None => home.url.clone(),
    };
    let wrong = |what: &str| io::Error::new(io::ErrorKind::Unsupported, what.to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("only http:// is simulated"))?;
    let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let place_and_port =
        if place.parse::<SocketAddr>().is_ok() || place.rsplit_once(':').is_some_and(is_port) {
            place.to_owned()
        } else {
            format!("{place}:80")
        };
    let to = tokio::net::lookup_host(place_and_port).await?;
    let to = to.into_iter().find(|to| to.is_ipv4() == from.is_ipv4());
    let to = to.ok_or_else(|| wrong("it is at no address of the guest's kind"))?;
    let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    let mut stream = socket.connect(to).await?;
    let body = form(facts.iter().filter(|(name, _)| home.posts(name)));
    let path = if path.is_empty() { "/" } else { path };
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: Cloud-Init/24.4\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    let first = String::from_utf8_lossy(&answer);
    let first = first.lines().next().unwrap_or_default();
    if first.starts_with("HTTP/1.") && first.split(' ').nth(1).is_some_and(|it| it.starts_with('2'))
    {
        return Ok(());
    }
    Err(io::Error::other(format!("the answer was `{}`", first.escape_debug())))
}

fn is_port((_, port): (&str, &str)) -> bool {
    port.parse::<u16>().is_ok()
}

/// Facts as a form has them.
fn form<'a>(facts: impl Iterator<Item = &'a (&'static str, String)>) -> String {
    let mut form = String::new();
    for (name, value) in facts {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
                form.push(char::from(byte));
            } else {
                let _ = write!(form, "%{byte:02X}");
            }
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn home(url: String) -> PhoneHome {
        PhoneHome { url, post: Some(vec!["instance_id".into(), "hostname".into()]), tries: 1 }
    }

    fn facts() -> [(&'static str, String); 3] {
        [("instance_id", "a b".into()), ("hostname", "gc".into()), ("fqdn", "gc.lab".into())]
    }

    #[tokio::test]
    async fn what_was_asked_for_is_posted_from_the_guests_own_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let hearing = async {
            let (mut stream, from) = listener.accept().await.unwrap();
            let mut said = vec![0; 1000];
            let count = stream.read(&mut said).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            (String::from_utf8_lossy(&said[..count]).into_owned(), from.ip())
        };
        let home = home(format!("http://{to}/home/$INSTANCE_ID"));
        let (from, facts) = ([127, 0, 0, 9].into(), facts());
        let (called, (said, seen)) = tokio::join!(call(&home, from, &facts), hearing);
        called.unwrap();
        assert_eq!(seen, from);
        assert!(said.starts_with("POST /home/a b HTTP/1.1\r\n"), "{said}");
        assert!(said.ends_with("\r\n\r\ninstance_id=a%20b&hostname=gc"), "{said}");
    }

    #[tokio::test]
    async fn a_call_that_nobody_takes_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        drop(listener);
        let error = call(&home(format!("http://{to}/")), [127, 0, 0, 1].into(), &facts()).await;
        assert!(error.unwrap_err().contains("in 1 tries"));
        let error = call(&home("https://bastion/".into()), [127, 0, 0, 1].into(), &facts()).await;
        assert!(error.unwrap_err().contains("only http://"));
    }
}
