//! The *workshop* has images made, once for all who ask at the same time.
//!
//! Invariant: whoever asks gets what was begun after the question, so that an edit is seen; at most one making of an image is
//! under way; a client that goes away ends none. Nothing here runs on the thread that moves the clients' bytes.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::digest::Digest;
use crate::image::Listed;
use crate::oci::Artifact;

use super::{Answered, Failure, ServedName, Stock};

/// How many images are made at once, different ones.
const MAKERS: usize = 4;

/// How much short work may wait.
const ERRANDS_MAX: usize = 4096;

/// What is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Image(String),
    /// What is said of the image of that name, if it has that digest.
    Documents(String, Digest),
}

/// What was made.
#[derive(Clone)]
enum Made {
    Image(Listed),
    Documents(Arc<Vec<Artifact>>),
}

/// Short work, which waits for no image.
enum Errand {
    Names(oneshot::Sender<Result<Vec<ServedName>, Failure>>),
    Answered(Answered),
    Rest,
}

type Waiting = Vec<oneshot::Sender<Result<Made, Failure>>>;

/// Those who wait, by what they wait for; an order that has an entry is somebody's.
type Orders = Arc<Mutex<BTreeMap<Order, Waiting>>>;

/// Where images are ordered.
pub(super) struct Workshop {
    orders: Orders,
    new: Sender<Order>,
    errands: SyncSender<Errand>,
}

/// What those who make images do; it ends when no [`Workshop`] is left.
pub(super) struct Bench {
    orders: Orders,
    new: Mutex<Receiver<Order>>,
    errands: Mutex<Receiver<Errand>>,
}

/// A workshop, and the bench where its work is done.
pub(super) fn open() -> (Workshop, Bench) {
    let orders = Orders::default();
    let (new, news) = channel();
    let (errands, all_errands) = sync_channel(ERRANDS_MAX);
    let workshop = Workshop {
        orders: orders.clone(),
        new,
        errands,
    };
    let bench = Bench {
        orders,
        new: Mutex::new(news),
        errands: Mutex::new(all_errands),
    };
    (workshop, bench)
}

impl Workshop {
    /// The names that images have now.
    pub(super) async fn names(&self) -> Result<Vec<ServedName>, Failure> {
        let (sender, names) = oneshot::channel();
        let sent = self.errands.try_send(Errand::Names(sender));
        sent.map_err(|_| Failure::ending())?;
        names.await.map_err(|_| Failure::ending())?
    }

    /// An image as it is now.
    pub(super) async fn image(&self, name: &str) -> Result<Listed, Failure> {
        match self.order(Order::Image(name.to_owned())).await? {
            Made::Image(image) => Ok(image),
            Made::Documents(_) => Err(Failure::ending()),
        }
    }

    /// What is said of an image.
    pub(super) async fn documents(&self, name: &str, digest: Digest) -> Result<Arc<Vec<Artifact>>, Failure> {
        match self.order(Order::Documents(name.to_owned(), digest)).await? {
            Made::Documents(documents) => Ok(documents),
            Made::Image(_) => Err(Failure::ending()),
        }
    }

    /// Tells of an answer.
    pub(super) fn tell(&self, answered: Answered) {
        // Who cannot keep up with listening hears less.
        let _ = self.errands.try_send(Errand::Answered(answered));
    }

    /// Tells that no image is held.
    pub(super) fn rest(&self) {
        let _ = self.errands.try_send(Errand::Rest);
    }

    async fn order(&self, order: Order) -> Result<Made, Failure> {
        self.wait_for(order).await.map_err(|_| Failure::ending())?
    }

    /// Where what is ordered will be told, which is for nobody to work on twice.
    fn wait_for(&self, order: Order) -> oneshot::Receiver<Result<Made, Failure>> {
        let (sender, made) = oneshot::channel();
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        match orders.get_mut(&order) {
            Some(waiting) => waiting.push(sender),
            None => {
                orders.insert(order.clone(), vec![sender]);
                // Where nobody works any more, the waiting ends with the orders.
                let _ = self.new.send(order);
            }
        }
        made
    }
}

impl Bench {
    /// Works until no workshop is left: each of `work`'s calls in a thread of `scope`.
    pub(super) fn man<'scope, 'all>(
        &'all self,
        scope: &'scope std::thread::Scope<'scope, 'all>,
        stock: &'all dyn Stock,
    ) {
        for _ in 0..MAKERS {
            scope.spawn(move || {
                while let Some(order) = next(&self.new) {
                    self.make(&order, stock);
                }
            });
        }
        scope.spawn(move || {
            while let Some(errand) = next(&self.errands) {
                match errand {
                    Errand::Names(sender) => {
                        // Who asked may be gone.
                        let _ = sender.send(stock.names());
                    }
                    Errand::Answered(answered) => stock.answered(&answered),
                    Errand::Rest => stock.rest(),
                }
            }
        });
    }

    /// Makes what was ordered, and again for those who asked meanwhile.
    fn make(&self, order: &Order, stock: &dyn Stock) {
        while let Some(waiting) = self.take(order) {
            let made = match order {
                Order::Image(name) => stock.image(name).map(Made::Image),
                Order::Documents(name, digest) => {
                    let documents = stock.documents(name, digest);
                    documents.map(|documents| Made::Documents(Arc::new(documents)))
                }
            };
            for sender in waiting {
                let _ = sender.send(made.clone());
            }
        }
    }

    /// Those who wait for `order`; where nobody does, it is nobody's any more.
    fn take(&self, order: &Order) -> Option<Waiting> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = orders.get_mut(order).map(std::mem::take).unwrap_or_default();
        // Who went away needs nothing.
        let waiting: Waiting = waiting.into_iter().filter(|sender| !sender.is_closed()).collect();
        if waiting.is_empty() {
            orders.remove(order);
            return None;
        }
        Some(waiting)
    }
}

fn next<T>(receiver: &Mutex<Receiver<T>>) -> Option<T> {
    let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
    receiver.recv().ok()
}
