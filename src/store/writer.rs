//! The one writer. For each batch of jobs it decides, writes, commits, publishes and answers, in this order.

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

/// The maximum number of queued jobs that are committed together.
const BATCH: usize = 256;

/// An open store that takes changes. Dropping it waits until the queued jobs are done.
pub struct Store {
    writer: Writer,
    reader: Arc<Mutex<Connection>>,
    pseudonym_key: Zeroizing<[u8; 32]>,
    proof_key: Zeroizing<[u8; 32]>,
    store_id: [u8; 16],
}

/// Which thread writes to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writes {
    /// A thread of the store's own, so that threads that serve requests do not wait for the disk.
    #[default]
    Aside,
    /// The caller's thread, which waits for the disk. Simulations need this: their simulated time would go on
    /// while another thread writes, by an amount that depends on the machine.
    InPlace,
}

enum Writer {
    /// Both are `Some` until the writer is dropped.
    Aside {
        jobs: Option<mpsc::Sender<Job>>,
        thread: Option<JoinHandle<()>>,
    },
    InPlace(Box<Mutex<Writing>>),
}

/// A job for the writer. It gets the batch to work in, or the reason why there is none. It returns a
/// [`Completion`].
type Job = Box<dyn FnOnce(Result<&mut Batch<'_>, StoreError>) -> Completion + Send>;
/// What to do after a job's batch was committed or failed: it gets the outcome and answers the caller.
type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// An open transaction, and the state as it will be once it is committed.
struct Batch<'a> {
    database: &'a mut Database,
    clock: &'a Clock,
    state: State,
    /// Set once a write has failed. Then nothing of the batch is committed.
    failed: Option<StoreError>,
}

/// A store that has been opened and read, and takes no changes yet.
pub struct OpenedStore {
    database: Database,
    state: State,
    pseudonym_key: Zeroizing<[u8; 32]>,
}

impl OpenedStore {
    /// The state that was read.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Begins to note uses of credentials. Returns the time since when all uses are in the store. That is `now` if
    /// the last process did not stop in order, since the uses in its memory are lost.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn begin_noting_uses(&mut self, now: Timestamp) -> Result<Timestamp, StoreError> {
        self.database.begin_noting_uses(now)
    }

    /// Starts the writer. `clock` tells the time of each decision. The writer calls `publish` with each committed
    /// state, before it answers the callers whose changes are in it.
    ///
    /// # Errors
    /// When the writer's thread or the second connection cannot be created.
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
    /// Opens a store, migrates it to this version, and reads all of it.
    ///
    /// # Errors
    /// See [`StoreError`]; the store is as it was then, unless it was of an older version and migrated before its damage was found.
    pub fn open(path: &Path, kek: Kek) -> Result<OpenedStore, StoreError> {
        let pseudonym_key = kek.derive("countersign audit names v1");
        let (database, state) = Database::open(path, kek)?;
        Ok(OpenedStore { database, state, pseudonym_key })
    }

    /// Decides on the latest state and makes the changes. Returns once they are durable and published.
    ///
    /// `decide` runs in the writer, so nobody else changes the state before the commit. It gets the state and the
    /// time when it runs, which is later than this call if the job had to queue.
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

    /// Like [`Store::commit`], but a request that was answered before gets the same answer again and changes
    /// nothing.
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

    /// Commits an empty change, to find out whether the store can be written.
    ///
    /// # Errors
    /// When the store cannot be written.
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
                // Sending fails if the caller has gone away. The change stands all the same.
                //
                // A failed batch also replaces a refusal by the error: the refusal may rest on a change by an
                // earlier job of the batch that was not committed.
                let _ = answer.send(match committed {
                    Ok(()) => outcome,
                    Err(error) => Err(E::from(error)),
                });
            })
        }));
        answered.await.unwrap_or_else(|_| Err(E::from(stopped())))
    }

    /// A page of audit events, newest first, with sequences less than `before`. It reads the database on a
    /// blocking thread.
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

    /// A pseudonym for a name that no client has, for the audit log: the name may be a secret that was pasted in
    /// the wrong place. The same name gets the same pseudonym. Without the KEK nobody can find out the name.
    pub fn pseudonym(&self, name: &str) -> String {
        let mac = hmac_sha256(&self.pseudonym_key, &[name.as_bytes()]);
        let digits: String = mac[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("unknown:{digits}")
    }

    /// A proof that this store had an epoch. Nobody without the KEK can make one.
    pub fn epoch_proof(&self, epoch: u64) -> [u8; 16] {
        let mac = hmac_sha256(&self.proof_key, &[&self.store_id, &epoch.to_be_bytes()]);
        let mut short = [0; 16];
        short.copy_from_slice(&mac[..16]);
        short
    }

    /// A proof of a list of audiences. It differs for another list, and nobody without the KEK can make one.
    pub fn audiences_proof(&self, audiences: &[Audience]) -> [u8; 16] {
        // The zero byte ends each name, so that two lists never give the same bytes.
        let names = audiences.iter().flat_map(|audience| [audience.as_str().as_bytes(), &[0]]);
        let parts: Vec<&[u8]> =
            [&self.store_id[..], b"audiences"].into_iter().chain(names).collect();
        let mac = hmac_sha256(&self.proof_key, &parts);
        let mut short = [0; 16];
        short.copy_from_slice(&mac[..16]);
        short
    }

    /// Notes that an epoch was published that the store does not have: raises the mark to it, so that restarts
    /// refuse the store too, and adds an audit event. It returns before that is done.
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
                // A poisoned lock means that an earlier commit panicked. With `Aside`, the thread would be gone.
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
        // The thread ends when the queue is closed and empty, so the sender is dropped before the join.
        drop(jobs.take());
        if let Some(thread) = thread.take() {
            // If the thread panicked, the panic has already been reported there.
            let _ = thread.join();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("it has been closed".to_owned())
}

/// The writer's thread. Jobs that queued while a batch was committed make up the next one.
fn run(mut writing: Writing, queue: mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        writing.commit(std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)));
    }
}

/// Everything that the writer works with.
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
                // After the commit: a mark ahead of the store would keep it from opening after a crash. Before
                // publishing: nobody is told of an epoch above the mark.
                database.raise_mark(state.epoch);
                publish(state);
                if let Some(head) = database.chain.head_since(mark) {
                    // Logs are usually kept elsewhere. There the head can show later that the audit log was cut.
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

/// Runs jobs in one transaction. If it cannot begin or cannot be committed, no job has any effect.
fn commit_batch(
    database: &mut Database,
    clock: &Clock,
    state: &State,
    jobs: impl Iterator<Item = Job>,
) -> (Vec<Completion>, Result<State, StoreError>) {
    // IMMEDIATE takes SQLite's write lock now. A deferred transaction would take it at its first write, and might
    // fail after the jobs have decided.
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
        // After some errors, such as a full disk, SQLite has already rolled back by itself.
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
            // The rows are written from the state after the change, which has the new epoch or revision.
            let after = self.state.after(&change);
            self.database.write(&change, &self.state, &after)?;
            self.state = after;
        }
        if anything {
            self.database.write_counters(&self.state)?;
        }
        events.iter().try_for_each(|event| self.database.record(event))
    }

    /// Dooms the batch: part of a decision may have been written, so none of the batch may be committed.
    fn fail(&mut self, error: StoreError) -> StoreError {
        self.failed = Some(error.clone());
        error
    }
}
