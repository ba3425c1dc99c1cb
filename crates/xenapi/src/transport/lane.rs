//! A connection that several requests share: the next is sent before the last was answered.
//!
//! ```text
//! board ──▶ Queue ──unsent──▶ drive ──▶ server
//!             ▲                 │
//! Seat ◀──────┴─────answers─────┘
//! ```
//!
//! Servers answer in the order in which they were asked. So there is nothing on a lane that takes its time,
//! for all behind it would wait, and nothing that may not be asked again, for all of them are lost with the
//! connection. A lane lasts as long as there is somebody on it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::answers::{ReceiveError, Response};
use super::connection::Connection;

/// How many requests may be on their way at one time.
const DEPTH: usize = 16;

/// Why a request on a lane has no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// Its answer is larger than the limit.
    TooLarge,
    /// The connection broke before its answer was whole. It may be asked again.
    Broken(Arc<io::Error>),
}

type Outcome = Result<Response, Lost>;

/// Where requests get on.
#[derive(Debug, Default)]
pub(super) struct Lane(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queue: Queue<oneshot::Sender<Outcome>>,
    /// Wakes the driver, where it waits.
    driver: Option<Waker>,
}

/// A request on a lane. If it is dropped before its answer came, nobody else gets on that lane.
#[derive(Debug)]
pub(super) struct Seat {
    lane: Arc<Lane>,
    number: u64,
    answer: oneshot::Receiver<Outcome>,
}

impl Lane {
    /// Lets a request on, if there is room.
    pub(super) fn board(self: &Arc<Self>, request: &[u8]) -> Option<Seat> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        let number = state.queue.add(request, sender)?;
        state.wake();
        Some(Seat { lane: Arc::clone(self), number, answer })
    }

    /// Whether it has not ended, and nobody has given up on it.
    pub(super) fn is_open(&self) -> bool {
        self.state().queue.open
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the answer to whom it is for.
    fn deliver(&self, outcome: Outcome) -> io::Result<()> {
        let asker = self.state().queue.answered();
        let unasked =
            |Unasked| io::Error::new(io::ErrorKind::InvalidData, "an answer to no request");
        if let Some(asker) = asker.map_err(unasked)? {
            // Who went in this very moment needs it no more than who went before.
            let _ = asker.send(outcome);
        }
        Ok(())
    }

    /// Lets nobody on any more, and tells all that wait why.
    fn lose(&self, reason: io::Error) {
        let reason = Arc::new(reason);
        let askers = self.state().queue.end();
        for asker in askers {
            let _ = asker.send(Err(Lost::Broken(Arc::clone(&reason))));
        }
    }

    /// Whether there is something for the driver to do; wakes it when there is, if not.
    fn poll_news(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.queue.has_news() {
            return Poll::Ready(());
        }
        state.driver = Some(context.waker().clone());
        Poll::Pending
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

impl Seat {
    /// Waits for the answer.
    pub(super) async fn answer(mut self) -> Outcome {
        (&mut self.answer).await.unwrap_or_else(|_| {
            let reason = io::Error::other("the runtime that it belongs to was shut down");
            Err(Lost::Broken(Arc::new(reason)))
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        if state.queue.give_up(self.number) {
            state.wake();
        }
    }
}

/// Ends the lane with its driver, however that ends.
struct Driving(Arc<Lane>);

impl Drop for Driving {
    fn drop(&mut self) {
        // Who still waits learns of it by the other end of its channel.
        drop(self.0.state().queue.end());
    }
}

/// Sends what gets on and hands out the answers, until there is nobody left. Gives back the connection if
/// it can be used for something else.
pub(super) async fn drive<S>(
    mut connection: Connection<S>,
    lane: Arc<Lane>,
) -> Option<Connection<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let driving = Driving(lane);
    let lane = &driving.0;
    let mut requests = BytesMut::new();
    loop {
        // All who are ready get on first, so that they go in one piece.
        tokio::task::yield_now().await;
        let next = lane.state().queue.next();
        match next {
            Next::Send(more) => requests.unsplit(more),
            Next::Leave => {
                return (requests.is_empty() && connection.is_reusable()).then_some(connection);
            }
            Next::Abandon => return None,
        }
        let moved = std::future::poll_fn(|context| {
            poll_move(&mut connection, lane, &mut requests, context)
        });
        if let Err(reason) = moved.await {
            lane.lose(reason);
            return None;
        }
    }
}

/// Is ready when answers came, or more requests.
fn poll_move<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    lane: &Lane,
    requests: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut news = false;
    while let Poll::Ready(answer) = connection.poll_exchange(context, requests) {
        let goes_on = match answer {
            Ok(response) => {
                let keep = response.keep;
                lane.deliver(Ok(response))?;
                keep
            }
            Err(ReceiveError::TooLarge) => {
                lane.deliver(Err(Lost::TooLarge))?;
                false
            }
            Err(ReceiveError::Io(error)) => return Poll::Ready(Err(error)),
        };
        if !goes_on {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        news = true;
    }
    if news { Poll::Ready(Ok(())) } else { lane.poll_news(context).map(Ok) }
}

/// Who asked, in the order in which the answers will come.
#[derive(Debug)]
struct Queue<T> {
    unsent: BytesMut,
    /// Those that were not answered; nothing for those who gave up.
    askers: VecDeque<Option<T>>,
    /// The number of the first of them.
    first: u64,
    open: bool,
}

/// There is no request that this could be the answer to.
#[derive(Debug, PartialEq)]
struct Unasked;

/// What the driver does next.
#[derive(Debug, PartialEq)]
enum Next {
    /// Send this, and wait for answers.
    Send(BytesMut),
    /// End, as there is nobody on it.
    Leave,
    /// End at once: there are answers to come, but nobody wants them.
    Abandon,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { unsent: BytesMut::new(), askers: VecDeque::new(), first: 0, open: true }
    }
}

impl<T> Queue<T> {
    /// Adds a request, if there is room for it, and gives it a number.
    fn add(&mut self, request: &[u8], asker: T) -> Option<u64> {
        if !self.open || self.askers.len() >= DEPTH {
            return None;
        }
        self.unsent.extend_from_slice(request);
        self.askers.push_back(Some(asker));
        Some(self.first + self.askers.len() as u64 - 1)
    }

    /// Whose answer came; nobody's if that one gave up.
    fn answered(&mut self) -> Result<Option<T>, Unasked> {
        let asker = self.askers.pop_front().ok_or(Unasked)?;
        self.first += 1;
        Ok(asker)
    }

    /// Lets the answer to this number go to nobody. A server that kept one waiting for too long would keep
    /// others, so nobody is added after that. False if the answer had come.
    fn give_up(&mut self, number: u64) -> bool {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let Some(asker) = place.and_then(|place| self.askers.get_mut(place)) else { return false };
        *asker = None;
        self.open = false;
        true
    }

    fn is_abandoned(&self) -> bool {
        !self.askers.is_empty() && self.askers.iter().all(Option::is_none)
    }

    /// Whether something else is to be done than to wait for answers.
    fn has_news(&self) -> bool {
        !self.unsent.is_empty() || self.is_abandoned()
    }

    /// What is to be done; nobody is added any more if that is to end.
    fn next(&mut self) -> Next {
        let next = if self.askers.is_empty() {
            Next::Leave
        } else if self.is_abandoned() {
            Next::Abandon
        } else {
            return Next::Send(self.unsent.split());
        };
        self.open = false;
        next
    }

    /// Adds nobody any more, and gives up those who wait.
    fn end(&mut self) -> Vec<T> {
        self.open = false;
        self.unsent.clear();
        self.askers.drain(..).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::{advance, timeout};

    use super::*;

    #[test]
    fn answers_go_to_those_who_asked_in_the_order_of_asking() {
        let mut queue = Queue::default();
        assert_eq!((queue.add(b"a", 'a'), queue.add(b"b", 'b')), (Some(0), Some(1)));
        assert_eq!(queue.next(), Next::Send(BytesMut::from("ab")));
        assert_eq!(queue.answered(), Ok(Some('a')));
        assert_eq!(queue.add(b"c", 'c'), Some(2));
        assert_eq!(queue.next(), Next::Send(BytesMut::from("c")));
        assert_eq!((queue.answered(), queue.answered()), (Ok(Some('b')), Ok(Some('c'))));
        assert_eq!(queue.answered(), Err(Unasked));
        assert_eq!(queue.next(), Next::Leave);
        assert_eq!(queue.add(b"d", 'd'), None);
    }

    #[test]
    fn there_is_room_for_so_many_and_again_when_one_was_answered() {
        let mut queue = Queue::default();
        for number in 0..DEPTH {
            assert_eq!(queue.add(b"", number), Some(number as u64));
        }
        assert_eq!(queue.add(b"", DEPTH), None);
        assert_eq!(queue.answered(), Ok(Some(0)));
        assert_eq!(queue.add(b"", DEPTH), Some(DEPTH as u64));
    }

    #[test]
    fn the_answer_to_who_gave_up_goes_to_nobody_and_nobody_else_gets_on() {
        let mut queue = Queue::default();
        for asker in ['a', 'b'] {
            queue.add(b"", asker);
        }
        assert!(queue.give_up(0));
        assert_eq!(queue.add(b"", 'c'), None);
        assert!(!queue.has_news() && matches!(queue.next(), Next::Send(_)));
        assert_eq!((queue.answered(), queue.answered()), (Ok(None), Ok(Some('b'))));
        assert!(!queue.give_up(1));
    }

    #[test]
    fn when_all_gave_up_their_answers_are_not_waited_for() {
        let mut queue = Queue::default();
        for asker in ['a', 'b'] {
            queue.add(b"", asker);
        }
        queue.give_up(1);
        queue.give_up(0);
        assert!(queue.has_news());
        assert_eq!(queue.next(), Next::Abandon);
    }

    #[test]
    fn those_without_an_answer_are_left_at_the_end() {
        let mut queue = Queue::default();
        for asker in ['a', 'b', 'c'] {
            queue.add(b"", asker);
        }
        assert_eq!(queue.answered(), Ok(Some('a')));
        queue.give_up(1);
        assert_eq!(queue.end(), ['c']);
        assert!(!queue.has_news() && queue.add(b"", 'd').is_none());
    }

    /// A lane with the server's end of its connection.
    struct Rig {
        lane: Arc<Lane>,
        server: DuplexStream,
        driver: JoinHandle<Option<Connection<DuplexStream>>>,
    }

    /// A lane that these requests are on; it takes answers of up to 100 bytes.
    fn rig(requests: &[&str]) -> (Rig, Vec<JoinHandle<Outcome>>) {
        let (client, server) = duplex(1 << 16);
        let lane = Arc::new(Lane::default());
        let seats = requests.iter().map(|request| lane.board(request.as_bytes()).unwrap());
        let waiting = seats.map(|seat| tokio::spawn(seat.answer())).collect();
        let driver = tokio::spawn(drive(Connection::new(client, 100), Arc::clone(&lane)));
        (Rig { lane, server, driver }, waiting)
    }

    fn answer(text: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
    }

    impl Rig {
        /// What came to the server, which waits for so many bytes.
        async fn asked(&mut self, count: usize) -> String {
            let mut bytes = vec![0; count];
            self.server.read_exact(&mut bytes).await.unwrap();
            String::from_utf8(bytes).unwrap()
        }

        async fn say(&mut self, text: &str) {
            self.server.write_all(text.as_bytes()).await.unwrap();
        }
    }

    /// What became of each: the body, or the kind of what went wrong.
    async fn told(waiting: Vec<JoinHandle<Outcome>>) -> Vec<String> {
        let mut told = Vec::new();
        for outcome in waiting {
            told.push(match outcome.await.unwrap() {
                Ok(response) => String::from_utf8(response.body).unwrap(),
                Err(Lost::TooLarge) => "too large".into(),
                Err(Lost::Broken(error)) => format!("{:?}", error.kind()),
            });
        }
        told
    }

    #[tokio::test]
    async fn requests_go_out_before_the_first_answer_and_the_connection_comes_back() {
        let (mut rig, waiting) = rig(&["a", "b", "c"]);
        assert_eq!(rig.asked(3).await, "abc");
        rig.say(&[answer("1"), answer("2"), answer("3")].concat()).await;
        assert_eq!(told(waiting).await, ["1", "2", "3"]);
        let mut connection = rig.driver.await.unwrap().unwrap();
        assert!(connection.is_open() && !rig.lane.is_open());
        connection.send(b"d").await.unwrap();
        rig.server.write_all(answer("4").as_bytes()).await.unwrap();
        assert_eq!(connection.receive().await.unwrap().body, b"4");
    }

    #[tokio::test]
    async fn who_comes_while_others_wait_is_sent_for_at_once() {
        let (mut rig, mut waiting) = rig(&["a", "b"]);
        assert_eq!(rig.asked(2).await, "ab");
        let seat = rig.lane.board(b"c").unwrap();
        waiting.push(tokio::spawn(seat.answer()));
        assert_eq!(rig.asked(1).await, "c");
        for text in ["1", "2", "3"] {
            rig.say(&answer(text)).await;
        }
        assert_eq!(told(waiting).await, ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn a_connection_cut_at_any_byte_loses_the_answers_that_are_not_whole() {
        let whole = [answer("1"), answer("22"), answer("333")].concat();
        let ends = [answer("1").len(), answer("1").len() + answer("22").len(), whole.len()];
        for cut in 0..whole.len() {
            let (mut rig, waiting) = rig(&["a", "b", "c"]);
            rig.asked(3).await;
            rig.say(&whole[..cut]).await;
            drop(rig.server);
            let outcome = |(text, end)| if end <= cut { text } else { "UnexpectedEof" };
            let expected = ["1", "22", "333"].into_iter().zip(ends).map(outcome);
            assert_eq!(told(waiting).await, expected.collect::<Vec<_>>(), "{cut}");
            assert!(rig.driver.await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn an_answer_that_closes_loses_those_behind_it() {
        let (mut rig, waiting) = rig(&["a", "b", "c"]);
        rig.asked(3).await;
        let last = answer("2").replace("\r\nC", "\r\nConnection: close\r\nC");
        rig.say(&[answer("1"), last, answer("3")].concat()).await;
        assert_eq!(told(waiting).await, ["1", "2", "ConnectionAborted"]);
        assert!(rig.driver.await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_answer_without_a_length_lasts_until_the_end_and_loses_those_behind_it() {
        let (mut rig, waiting) = rig(&["a", "b"]);
        rig.asked(2).await;
        rig.say("HTTP/1.1 500 Sorry\r\n\r\nthe rest").await;
        drop(rig.server);
        assert_eq!(told(waiting).await, ["the rest", "ConnectionAborted"]);
    }

    #[tokio::test]
    async fn what_is_no_answer_loses_all() {
        let (mut rig, waiting) = rig(&["a", "b"]);
        rig.asked(2).await;
        rig.say("SSH-2.0-OpenSSH_9.2\r\n").await;
        assert_eq!(told(waiting).await, ["InvalidData", "InvalidData"]);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_told_to_whom_it_is_for() {
        let (mut rig, waiting) = rig(&["a", "b", "c"]);
        rig.asked(3).await;
        rig.say(&[answer("1"), answer(&"x".repeat(101)), answer("3")].concat()).await;
        assert_eq!(told(waiting).await, ["1", "too large", "ConnectionAborted"]);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_asked_for_ends_the_connection() {
        let (mut rig, waiting) = rig(&["a"]);
        rig.asked(1).await;
        rig.say(&[answer("1"), answer("2")].concat()).await;
        assert_eq!(told(waiting).await, ["1"]);
        assert!(rig.driver.await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_others_their_answers() {
        let (mut rig, mut waiting) = rig(&["a", "b", "c"]);
        rig.asked(3).await;
        let impatient = waiting.remove(1);
        impatient.abort();
        assert!(impatient.await.unwrap_err().is_cancelled());
        assert!(rig.lane.board(b"d").is_none());
        rig.say(&[answer("1"), answer("2"), answer("3")].concat()).await;
        assert_eq!(told(waiting).await, ["1", "3"]);
        assert!(rig.driver.await.unwrap().unwrap().is_reusable());
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_gave_up_the_connection_is_closed() {
        let (mut rig, waiting) = rig(&["a", "b"]);
        rig.asked(2).await;
        for waiting in waiting {
            waiting.abort();
        }
        let ended = timeout(Duration::from_secs(1), rig.driver).await;
        assert!(ended.unwrap().unwrap().is_none());
        assert_eq!(rig.server.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_vanishes_loses_all_and_lets_nobody_on() {
        let (mut rig, waiting) = rig(&["a", "b"]);
        rig.asked(2).await;
        rig.driver.abort();
        advance(Duration::from_millis(1)).await;
        assert_eq!(told(waiting).await, ["Other", "Other"]);
        assert!(rig.lane.board(b"c").is_none());
    }

    #[tokio::test]
    async fn requests_that_do_not_fit_into_the_stream_are_sent_while_answers_are_read() {
        let (client, mut server) = duplex(16);
        let lane = Arc::new(Lane::default());
        let large = "x".repeat(1000);
        let seats: Vec<_> = (0..DEPTH).map(|_| lane.board(large.as_bytes()).unwrap()).collect();
        let waiting = seats.into_iter().map(|seat| tokio::spawn(seat.answer())).collect();
        let driver = tokio::spawn(drive(Connection::new(client, 100), lane));
        for _ in 0..DEPTH {
            let mut request = vec![0; large.len()];
            server.read_exact(&mut request).await.unwrap();
            server.write_all(answer("1").as_bytes()).await.unwrap();
        }
        assert_eq!(told(waiting).await, ["1"; DEPTH]);
        assert!(driver.await.unwrap().is_some());
    }
}
