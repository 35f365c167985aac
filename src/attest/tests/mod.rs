//! Documents of a small made-up image, and signatures over them.

mod documents;
mod signatures;
mod summaries;
