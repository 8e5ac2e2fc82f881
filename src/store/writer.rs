//! The one writer: decides, writes, commits, publishes, answers; in this order.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use countersign_mesh::claims::{Audience, Clock, Timestamp};
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::store::audit::{self, AuditEvent, AuditRow};
use crate::store::commit::{CommitError, Committed, Decision, RequestError, RequestKey};
use crate::store::kek::{Kek, hmac_sha256};
use crate::store::sqlite::Database;
use crate::store::sqlite::error::StoreError;
use crate::store::state::{Change, State};

/// How many queued jobs are committed together at the most.
const BATCH: usize = 256;

/// An open store. Dropping it waits for what is queued.
pub struct Store {
    writer: Writer,
    reader: Arc<Mutex<Connection>>,
    pseudonym_key: Zeroizing<[u8; 32]>,
    proof_key: Zeroizing<[u8; 32]>,
    store_id: [u8; 16],
}

/// Whose thread writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writes {
    /// A thread of its own, so that no thread that serves requests waits on the disk.
    #[default]
    Aside,
    /// The thread of the caller, which waits on the disk. This is for simulations: with another thread, simulated time
    /// would pass for as long as the machine happens to take.
    InPlace,
}

enum Writer {
    /// Both exist until the store is dropped.
    Aside {
        jobs: Option<mpsc::Sender<Job>>,
        thread: Option<JoinHandle<()>>,
    },
    InPlace(Box<Mutex<Writing>>),
}

/// A job for the writer. It gets the batch to work in, or the reason why there is none. It returns what to do once the
/// batch has been committed or has failed.
type Job = Box<dyn FnOnce(Result<&mut Batch<'_>, StoreError>) -> Completion + Send>;
type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A transaction under way, and the state that it leads to when it is committed.
struct Batch<'a> {
    database: &'a mut Database,
    clock: &'a Clock,
    state: State,
    /// Set once something could not be written. Nothing of the batch is committed then.
    failed: Option<StoreError>,
}

/// A store that has been read, and takes no changes yet.
pub struct OpenedStore {
    database: Database,
    state: State,
    pseudonym_key: Zeroizing<[u8; 32]>,
}

impl OpenedStore {
    /// What is in it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Begins to note uses of credentials. Returns the time from which on all of them are in the store. After an end that
    /// was not in order that is `now`, because the uses in memory were lost.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn begin_noting_uses(&mut self, now: Timestamp) -> Result<Timestamp, StoreError> {
        self.database.begin_noting_uses(now)
    }

    /// Starts to take changes, at the times that `clock` tells. `publish` is called with each state that is committed, before
    /// whoever caused it gets an answer.
    ///
    /// # Errors
    /// When there is no thread or no second connection to be had.
    pub fn start(
        self,
        clock: Clock,
        publish: impl Fn(&State) + Send + 'static,
        writes: Writes,
    ) -> Result<Store, StoreError> {
        let Self { database, state, pseudonym_key } = self;
        let reader = Arc::new(Mutex::new(database.reader()?));
        let (proof_key, store_id) = database.proof_key();
        let writing = Writing { database, clock, state, publish: Box::new(publish) };
        let writer = match writes {
            Writes::Aside => Writer::aside(writing)?,
            Writes::InPlace => Writer::InPlace(Box::new(Mutex::new(writing))),
        };
        Ok(Store { writer, reader, pseudonym_key, proof_key, store_id })
    }
}

impl Store {
    /// Opens a store, brings it to this version, and reads all of it.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing has been changed then.
    pub fn open(path: &Path, kek: Kek) -> Result<OpenedStore, StoreError> {
        let pseudonym_key = kek.derive("countersign audit names v1");
        let (database, state) = Database::open(path, kek)?;
        Ok(OpenedStore { database, state, pseudonym_key })
    }

    /// Decides on the latest state, and writes the decision. Answers once it is durable and published.
    ///
    /// `decide` runs on the writer's thread. It may have waited in the queue, so it is told the time at which it runs.
    /// Nobody else changes the state meanwhile.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing has been changed then.
    pub async fn commit<T, E>(
        &self,
        decide: impl FnOnce(&State, Timestamp) -> Result<Decision<T>, E> + Send + 'static,
    ) -> Result<T, CommitError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.run(move |batch| batch.execute(decide)).await
    }

    /// Like [`Store::commit`], but a request that was answered before gets the same answer again and
    /// changes nothing.
    ///
    /// # Errors
    /// See [`RequestError`]; nothing has been changed then.
    pub async fn commit_once<T, E>(
        &self,
        request: RequestKey,
        decide: impl FnOnce(&State, Timestamp) -> Result<Decision<T>, E> + Send + 'static,
    ) -> Result<Committed<T>, RequestError<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + 'static,
    {
        self.run(move |batch| batch.execute_once(&request, decide)).await
    }

    /// Waits until the store has been reached for writing, and changes nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn reach(&self) -> Result<(), StoreError> {
        let nothing = |_: &State, _| {
            let changes = vec![Change::Nothing];
            Ok::<_, Infallible>(Decision { changes, events: Vec::new(), answer: () })
        };
        match self.commit(nothing).await {
            Ok(()) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
            Err(CommitError::Refused(never)) => match never {},
        }
    }

    async fn run<T, E>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.submit(Box::new(move |batch| {
            let outcome = match batch {
                Ok(batch) => work(batch),
                Err(error) => Err(E::from(error)),
            };
            Box::new(move |committed| {
                // A caller that has gone away gets no answer, and its change stands. If the batch failed, a refusal does
                // not count either: it may have been decided on a state that another job of the batch was to make.
                let _ = answer.send(match committed {
                    Ok(()) => outcome,
                    Err(error) => Err(E::from(error)),
                });
            })
        }));
        answered.await.unwrap_or_else(|_| Err(E::from(stopped())))
    }

    /// A page of audit events, newest first, from before a sequence. Waits on the disk: not for a
    /// thread that serves others.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn audit_events(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let reader = Arc::clone(&self.reader);
        let read = move || {
            let connection = reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Ok(audit::list(&connection, before, limit)?)
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Err(stopped()))
    }

    /// A pseudonym for a name that no client has. The audit log holds it in place of the name, which may be a secret in
    /// the wrong place. The same name gets the same pseudonym. Without the KEK nobody can tell which name it was.
    pub fn pseudonym(&self, name: &str) -> String {
        let mac = hmac_sha256(&self.pseudonym_key, &[name.as_bytes()]);
        let digits: String = mac[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("unknown:{digits}")
    }

    /// A proof that this store had an epoch. Nobody can make one without the KEK.
    pub fn epoch_proof(&self, epoch: u64) -> [u8; 16] {
        let mac = hmac_sha256(&self.proof_key, &[&self.store_id, &epoch.to_be_bytes()]);
        let mut short = [0; 16];
        short.copy_from_slice(&mac[..16]);
        short
    }

    /// A keyed fingerprint of audiences.
    pub fn audiences_proof(&self, audiences: &[Audience]) -> [u8; 16] {
        let names = audiences.iter().flat_map(|audience| [audience.as_str().as_bytes(), &[0]]);
        let parts: Vec<&[u8]> =
            [&self.store_id[..], b"audiences"].into_iter().chain(names).collect();
        let mac = hmac_sha256(&self.proof_key, &parts);
        let mut short = [0; 16];
        short.copy_from_slice(&mac[..16]);
        short
    }

    /// Notes that an epoch was published which the store does not have, over restarts too, and in the audit log. Does not
    /// wait for that.
    pub fn note_published(&self, epoch: u64, event: AuditEvent) {
        self.submit(Box::new(move |batch| {
            if let Ok(batch) = batch {
                batch.database.raise_mark(epoch);
                let event = AuditEvent { at: batch.clock.now(), ..event };
                if let Err(error) = batch.write(Vec::new(), &[event]) {
                    batch.failed = Some(error);
                }
            }
            Box::new(|_| ())
        }));
    }

    fn submit(&self, job: Job) {
        match &self.writer {
            Writer::Aside { jobs: Some(jobs), .. } => {
                if let Err(mpsc::SendError(job)) = jobs.send(job) {
                    job(Err(stopped()))(Err(stopped()));
                }
            }
            Writer::Aside { jobs: None, .. } => job(Err(stopped()))(Err(stopped())),
            Writer::InPlace(writing) => match writing.lock() {
                Ok(mut writing) => writing.commit(std::iter::once(job)),
                // The same as after a panic of the thread.
                Err(_) => job(Err(stopped()))(Err(stopped())),
            },
        }
    }
}

impl Writer {
    fn aside(writing: Writing) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(writing, queue))
            .map_err(|error| {
                StoreError::Unavailable(format!("no thread for the writer: {error}"))
            })?;
        Ok(Self::Aside { jobs: Some(jobs), thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Self::Aside { jobs, thread } = self else { return };
        drop(jobs.take());
        if let Some(thread) = thread.take() {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("it has been closed".to_owned())
}

fn run(mut writing: Writing, queue: mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        writing.commit(std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)));
    }
}

/// All that the writer has.
struct Writing {
    database: Database,
    clock: Clock,
    state: State,
    publish: Box<dyn Fn(&State) + Send>,
}

impl Writing {
    fn commit(&mut self, jobs: impl Iterator<Item = Job>) {
        let Self { database, clock, state, publish } = self;
        let mark = database.chain.mark();
        let (completions, committed) = commit_batch(database, clock, state, jobs);
        match committed {
            Ok(new) => {
                *state = new;
                database.raise_mark(state.epoch);
                publish(state);
                if let Some(head) = database.chain.head_since(mark) {
                    // Logs are kept elsewhere. There this line shows later whether the audit log was cut back.
                    tracing::info!(sequence = head.sequence, mac = head.mac, "audit head");
                }
                completions.into_iter().for_each(|complete| complete(Ok(())));
            }
            Err(error) => {
                database.chain.rewind(mark);
                tracing::error!(%error, "nothing could be written");
                completions.into_iter().for_each(|complete| complete(Err(error.clone())));
            }
        }
    }
}

/// Runs jobs in one transaction. When it cannot begin, or cannot be committed, none of them counts.
fn commit_batch(
    database: &mut Database,
    clock: &Clock,
    state: &State,
    jobs: impl Iterator<Item = Job>,
) -> (Vec<Completion>, Result<State, StoreError>) {
    if let Err(error) = database.connection.execute_batch("BEGIN IMMEDIATE") {
        let error = StoreError::from(error);
        return (jobs.map(|job| job(Err(error.clone()))).collect(), Err(error));
    }
    let mut batch = Batch { database, clock, state: state.clone(), failed: None };
    let completions = jobs
        .map(|job| match batch.failed.clone() {
            None => job(Ok(&mut batch)),
            Some(error) => job(Err(error)),
        })
        .collect();
    let Batch { database, state, failed, .. } = batch;
    let committed = match failed {
        None => database.connection.execute_batch("COMMIT").map_err(StoreError::from),
        Some(error) => Err(error),
    };
    if committed.is_err() && !database.connection.is_autocommit() {
        // SQLite may have rolled back by itself already, when the disk was full or failed.
        let _ = database.connection.execute_batch("ROLLBACK");
    }
    (completions, committed.map(|()| state))
}

impl Batch<'_> {
    fn execute<T, E>(
        &mut self,
        decide: impl FnOnce(&State, Timestamp) -> Result<Decision<T>, E>,
    ) -> Result<T, CommitError<E>> {
        let Decision { changes, events, answer } =
            decide(&self.state, self.clock.now()).map_err(CommitError::Refused)?;
        self.write(changes, &events).map_err(|error| self.fail(error))?;
        Ok(answer)
    }

    fn execute_once<T, E>(
        &mut self,
        request: &RequestKey,
        decide: impl FnOnce(&State, Timestamp) -> Result<Decision<T>, E>,
    ) -> Result<Committed<T>, RequestError<E>>
    where
        T: Serialize + DeserializeOwned,
    {
        if let Some((fingerprint, answer)) = self.database.answered(request)? {
            if fingerprint != request.fingerprint {
                return Err(RequestError::RequestIdReused);
            }
            let unreadable = |_| StoreError::Corrupt("an answer cannot be read".to_owned());
            return Ok(Committed::Before(serde_json::from_str(&answer).map_err(unreadable)?));
        }
        let answer = self.execute(decide)?;
        let json = serde_json::to_string(&answer).expect("answers are always JSON");
        let now = self.clock.now();
        self.database.remember_answer(request, &json, now).map_err(|error| self.fail(error))?;
        Ok(Committed::Now(answer))
    }

    fn write(&mut self, changes: Vec<Change>, events: &[AuditEvent]) -> Result<(), StoreError> {
        let anything = !changes.is_empty();
        for change in changes {
            let after = self.state.after(&change);
            self.database.write(&change, &self.state, &after)?;
            self.state = after;
        }
        if anything {
            self.database.write_counters(&self.state)?;
        }
        events.iter().try_for_each(|event| self.database.record(event))
    }

    fn fail(&mut self, error: StoreError) -> StoreError {
        self.failed = Some(error.clone());
        error
    }
}
