//! Several operations that happen as one.

use core::future::poll_fn;
use core::ops::{AsyncFnMut, Deref};
use core::task::{Poll, ready};
use core::time::Duration;

use fata_hypercall::Errno;

use super::{Asked, Client};
use crate::Error;
use crate::wire::Request;

/// Milliseconds before each attempt: twelve attempts, and about a third of a second between the first and the last.
const PAUSES: [u8; 12] = [0, 1, 2, 4, 8, 16, 32, 64, 64, 64, 64, 64];

/// How many transactions are under way at a time; further ones wait. xenstored refuses the eleventh of a domain.
const AT_ONCE: usize = 4;

/// The right to have a transaction under way.
#[derive(Debug)]
struct Permit(Client);

impl Permit {
    fn take(client: &Client) -> impl Future<Output = Self> {
        let shared = &client.shared;
        poll_fn(|cx| {
            loop {
                let seen = shared.transaction_ended.count();
                let under_way = shared.transactions.get();
                if under_way < AT_ONCE {
                    shared.transactions.set(under_way + 1);
                    return Poll::Ready(Self(client.clone()));
                }
                ready!(shared.transaction_ended.poll_after(seen, cx));
            }
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        shared.transactions.set(shared.transactions.get() - 1);
        shared.transaction_ended.raise();
    }
}

/// The store as it was when the transaction began, with the changes that were made in it.
///
/// Node operations on it belong to the transaction; watches do not, for the protocol has none in transactions.
#[derive(Debug)]
pub struct Transaction {
    client: Client,
    /// The server still has it.
    open: bool,
    _permit: Permit,
}

impl Deref for Transaction {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Transaction {
    /// `life`: the one in which the caller began.
    async fn begin(client: &Client, pause: Duration, life: u32) -> Result<Self, Error> {
        if !pause.is_zero() {
            client.shared.handle.sleep(pause).await;
            client.shared.mux.borrow_mut().count_retry();
        }
        let permit = Permit::take(client).await;
        if client.life() != life {
            return Err(Error::Restored);
        }
        let (asked, generation) = client.begin();
        let transaction = Some((asked.await?, generation));
        Ok(Self {
            client: Client {
                shared: client.shared.clone(),
                transaction,
            },
            open: true,
            _permit: permit,
        })
    }

    fn commit(&mut self) -> Asked<'_, ()> {
        // From here on it ends with this request: answered, or orphaned, or turned into an abort before it was sent.
        self.open = false;
        self.client.done(Ok(Request::TransactionEnd(true)))
    }
}

impl Drop for Transaction {
    /// Aborts, unless it has ended.
    fn drop(&mut self) {
        if let (true, Some((tx_id, generation))) = (self.open, self.client.transaction) {
            self.client.shared.with(|mux| {
                if mux.generation() == generation {
                    mux.submit_detached(&Request::TransactionEnd(false), tx_id);
                }
            });
        }
    }
}

impl Client {
    /// Does what `body` does as one change, or not at all.
    ///
    /// If others wrote what it read in the meantime, all of it is tried again after a pause, 12 times at most: `body`
    /// must be ready to run more than once. The transaction ends on every path: an error from `body` aborts it, and
    /// so does dropping this future (rule 64).
    ///
    /// ```no_run
    /// # async fn example(store: &fata_xenstore::Client) -> Result<(), fata_xenstore::Error> {
    /// store
    ///     .transaction(async |nodes| {
    ///         let visits: u32 = nodes.read_number("data/visits", 0..=9999).await?;
    ///         nodes.write("data/visits", &fata_xenstore::decimal::string(visits.into()).as_str()[..]).await
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Client`]; whatever `body` gives; [`Error::Contended`] if others came first each time; [`Error::Restored`] if the
    /// domain was restored in the meantime.
    pub async fn transaction<T>(
        &self,
        mut body: impl AsyncFnMut(&Transaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let life = self.life();
        for pause in PAUSES {
            let mut transaction = Transaction::begin(self, Duration::from_millis(pause.into()), life).await?;
            let outcome = match body(&transaction).await {
                Ok(value) => transaction.commit().await.map(|()| value),
                Err(error) => Err(error), // dropping the transaction aborts it
            };
            if outcome.as_ref().err() != Some(&Error::Refused(Errno::EAGAIN)) {
                return outcome;
            }
        }
        Err(Error::Contended)
    }
}
