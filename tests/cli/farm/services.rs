//! The services of a farm.

use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::build::bazel::semver::SemVer;
use bazel_remote_apis::google::bytestream as stream;
use bazel_remote_apis::google::longrunning as operations;
use bazel_remote_apis::google::protobuf::{Any, Empty};
use bazel_remote_apis::google::rpc;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::job::{Answer, Job};
use super::{Operation, State};

/// Bytes of a file that are given together.
const PIECE: usize = 64 << 10;

#[derive(Clone)]
pub struct Services(pub Arc<State>);

type Pieces<T> = ReceiverStream<Result<T, Status>>;

impl Services {
    /// Lets a call in, unless it lacks the token or is to fail.
    fn enter<T>(&self, what: &str, instance: &str, request: &Request<T>) -> Result<(), Status> {
        let before = self.0.count(what, 1);
        if let Some(token) = self.0.rules.token {
            let given = request
                .metadata()
                .get("authorization")
                .and_then(|given| given.to_str().ok());
            if given != Some(&format!("Bearer {token}")) {
                return Err(Status::unauthenticated("who are you?"));
            }
        }
        if instance != self.0.rules.instance {
            return Err(Status::not_found(format!("no instance `{instance}`")));
        }
        match (self.0.rules.faults)(what, before) {
            Some(status) => Err(status),
            None => Ok(()),
        }
    }

    /// Splits a resource's name into the instance and the rest.
    fn resource<'a>(&self, name: &'a str) -> (&'a str, &'a str) {
        match name.strip_prefix(self.0.rules.instance) {
            Some(rest) => (self.0.rules.instance, rest.trim_start_matches('/')),
            None => ("?", name),
        }
    }
}

/// The digest at the end of a resource's name.
fn digest_in(name: &str) -> Result<api::Digest, Status> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [.., "blobs", hash, size] => Ok(api::Digest {
            hash: (*hash).to_owned(),
            size_bytes: size.parse().map_err(|_| Status::invalid_argument("size"))?,
        }),
        _ => Err(Status::invalid_argument(name)),
    }
}

fn ok() -> rpc::Status {
    rpc::Status::default()
}

fn status(status: &Status) -> rpc::Status {
    rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    }
}

#[tonic::async_trait]
impl api::capabilities_server::Capabilities for Services {
    async fn get_capabilities(
        &self,
        request: Request<api::GetCapabilitiesRequest>,
    ) -> Result<Response<api::ServerCapabilities>, Status> {
        self.enter("capabilities", &request.get_ref().instance_name, &request)?;
        let sha256 = i32::from(api::digest_function::Value::Sha256);
        let links = match self.0.rules.disallows_links {
            true => api::symlink_absolute_path_strategy::Value::Disallowed,
            false => api::symlink_absolute_path_strategy::Value::Allowed,
        };
        let version = |minor| {
            Some(SemVer {
                major: 2,
                minor,
                ..SemVer::default()
            })
        };
        Ok(Response::new(api::ServerCapabilities {
            cache_capabilities: Some(api::CacheCapabilities {
                digest_functions: vec![sha256],
                symlink_absolute_path_strategy: links.into(),
                max_batch_total_size_bytes: 1 << 20,
                ..api::CacheCapabilities::default()
            }),
            execution_capabilities: Some(api::ExecutionCapabilities {
                digest_function: sha256,
                exec_enabled: true,
                ..api::ExecutionCapabilities::default()
            }),
            low_api_version: version(0),
            high_api_version: version(3),
            ..api::ServerCapabilities::default()
        }))
    }
}

#[tonic::async_trait]
impl api::content_addressable_storage_server::ContentAddressableStorage for Services {
    async fn find_missing_blobs(
        &self,
        request: Request<api::FindMissingBlobsRequest>,
    ) -> Result<Response<api::FindMissingBlobsResponse>, Status> {
        self.enter("find missing", &request.get_ref().instance_name, &request)?;
        let mut missing = request.into_inner().blob_digests;
        missing.retain(|digest| !self.0.has(digest));
        Ok(Response::new(api::FindMissingBlobsResponse {
            missing_blob_digests: missing,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<api::BatchUpdateBlobsRequest>,
    ) -> Result<Response<api::BatchUpdateBlobsResponse>, Status> {
        self.enter("update", &request.get_ref().instance_name, &request)?;
        let responses = request.into_inner().requests.into_iter().map(|blob| {
            let digest = self.0.put(&blob.data);
            self.0.count("blobs sent", 1);
            self.0.count("bytes sent", blob.data.len());
            let same = Some(&digest) == blob.digest.as_ref();
            api::batch_update_blobs_response::Response {
                digest: blob.digest,
                status: Some(if same {
                    ok()
                } else {
                    status(&Status::invalid_argument("another digest"))
                }),
            }
        });
        Ok(Response::new(api::BatchUpdateBlobsResponse {
            responses: responses.collect(),
        }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<api::BatchReadBlobsRequest>,
    ) -> Result<Response<api::BatchReadBlobsResponse>, Status> {
        self.enter("read", &request.get_ref().instance_name, &request)?;
        let responses = request.into_inner().digests.into_iter().map(|digest| {
            let found = self.0.blob(&digest);
            api::batch_read_blobs_response::Response {
                digest: Some(digest),
                status: Some(match found {
                    Some(_) => ok(),
                    None => status(&Status::not_found("it is gone")),
                }),
                data: found.unwrap_or_default(),
                ..api::batch_read_blobs_response::Response::default()
            }
        });
        Ok(Response::new(api::BatchReadBlobsResponse {
            responses: responses.collect(),
        }))
    }

    type GetChunkMappingStream = Pieces<api::GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<api::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<api::RegisterChunkMappingRequest>>,
    ) -> Result<Response<api::RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    type GetTreeStream = Pieces<api::GetTreeResponse>;

    async fn get_tree(&self, _: Request<api::GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn split_blob(&self, _: Request<api::SplitBlobRequest>) -> Result<Response<api::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn splice_blob(
        &self,
        _: Request<api::SpliceBlobRequest>,
    ) -> Result<Response<api::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

#[tonic::async_trait]
impl stream::byte_stream_server::ByteStream for Services {
    type ReadStream = Pieces<stream::ReadResponse>;

    async fn read(&self, request: Request<stream::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (instance, name) = self.resource(&request.get_ref().resource_name);
        self.enter("read stream", instance, &request)?;
        let digest = digest_in(name)?;
        let bytes = self.0.blob(&digest).ok_or_else(|| Status::not_found("it is gone"))?;
        let offset = usize::try_from(request.get_ref().read_offset).unwrap();
        self.0.count(&format!("read at {offset}"), 1);
        let rest = bytes.get(offset..).ok_or_else(|| Status::out_of_range("offset"))?;
        let most = self.0.rules.read_breaks_at.unwrap_or(rest.len()).min(rest.len());
        let breaks = most < rest.len();
        let rest = rest[..most].to_vec();
        let (sender, pieces) = mpsc::channel(2);
        tokio::spawn(async move {
            for piece in rest.chunks(PIECE) {
                let data = piece.to_vec();
                if sender.send(Ok(stream::ReadResponse { data })).await.is_err() {
                    return;
                }
            }
            if breaks {
                let _ = sender.send(Err(Status::unavailable("a cable came loose"))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn write(
        &self,
        request: Request<Streaming<stream::WriteRequest>>,
    ) -> Result<Response<stream::WriteResponse>, Status> {
        let first = self.0.count("write stream", 1) == 0;
        let mut pieces = request.into_inner();
        let mut resource = String::new();
        while let Some(piece) = pieces.message().await? {
            if !piece.resource_name.is_empty() {
                resource = piece.resource_name;
            }
            let mut uploads = self.0.uploads.lock().unwrap();
            let upload = uploads.entry(resource.clone()).or_default();
            if piece.write_offset != upload.len() as i64 {
                return Err(Status::invalid_argument("offset"));
            }
            upload.extend_from_slice(&piece.data);
            self.0.count("bytes sent", piece.data.len());
            if self
                .0
                .rules
                .upload_breaks_at
                .is_some_and(|most| first && upload.len() >= most)
            {
                return Err(Status::unavailable("a cable came loose"));
            }
            if piece.finish_write {
                let bytes = uploads.remove(&resource).unwrap_or_default();
                let digest = self.0.put(&bytes);
                return match digest_in(&resource)? == digest {
                    true => Ok(Response::new(stream::WriteResponse {
                        committed_size: digest.size_bytes,
                    })),
                    false => Err(Status::invalid_argument("another digest")),
                };
            }
        }
        Err(Status::cancelled("it ended early"))
    }

    async fn query_write_status(
        &self,
        request: Request<stream::QueryWriteStatusRequest>,
    ) -> Result<Response<stream::QueryWriteStatusResponse>, Status> {
        self.0.count("query write", 1);
        let uploads = self.0.uploads.lock().unwrap();
        let upload = uploads.get(&request.get_ref().resource_name);
        Ok(Response::new(stream::QueryWriteStatusResponse {
            committed_size: upload.map_or(0, |bytes| bytes.len() as i64),
            complete: false,
        }))
    }
}

#[tonic::async_trait]
impl api::action_cache_server::ActionCache for Services {
    async fn get_action_result(
        &self,
        request: Request<api::GetActionResultRequest>,
    ) -> Result<Response<api::ActionResult>, Status> {
        self.enter("cache", &request.get_ref().instance_name, &request)?;
        let action = request.into_inner().action_digest.unwrap_or_default();
        let found = self.0.cache.lock().unwrap().get(&action.hash).cloned();
        self.0.count("cache hit", usize::from(found.is_some()));
        found.map(Response::new).ok_or_else(|| Status::not_found("never seen"))
    }

    async fn update_action_result(
        &self,
        _: Request<api::UpdateActionResultRequest>,
    ) -> Result<Response<api::ActionResult>, Status> {
        Err(Status::permission_denied("workers alone may"))
    }
}

#[tonic::async_trait]
impl api::execution_server::Execution for Services {
    type ExecuteStream = Pieces<operations::Operation>;
    type WaitExecutionStream = Pieces<operations::Operation>;

    async fn execute(&self, request: Request<api::ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        self.enter("execute", &request.get_ref().instance_name, &request)?;
        let request = request.into_inner();
        let digest = request.action_digest.unwrap_or_default();
        let number = self.0.count(&format!("action {}", digest.hash), 1);
        self.0.count("skips cache", usize::from(request.skip_cache_lookup));
        let name = format!("operations/{}", self.0.count("operations", 1));
        let (sender, operation) = watch::channel(None);
        self.0
            .operations
            .lock()
            .unwrap()
            .insert(name.clone(), operation.clone());
        let state = self.0.clone();
        let job = Job::new(&state, digest, number);
        let loose = job.number == 0 && (state.rules.faults)("follow", 0).is_some();
        // Roots may be deep.
        let builder = std::thread::Builder::new().stack_size(64 << 20);
        let spawned = builder.spawn(move || {
            let answer = (job.state.rules.answers)(&job);
            let response = match answer {
                Answer::Result(result) => {
                    if result.exit_code == 0 {
                        job.state.remember(&job.digest, (*result).clone());
                    }
                    Ok(api::ExecuteResponse {
                        result: Some(*result),
                        status: Some(ok()),
                        ..api::ExecuteResponse::default()
                    })
                }
                Answer::Response(response) => Ok(*response),
                Answer::Broken(status) => Err(status),
                // The channel stays open, and nothing is ever said.
                Answer::Never => {
                    job.state.count("never", 1);
                    std::mem::forget(sender);
                    return;
                }
            };
            let _ = sender.send(Some(response));
        });
        drop(spawned.unwrap());
        Ok(Response::new(follow(name, operation, loose)))
    }

    async fn wait_execution(
        &self,
        request: Request<api::WaitExecutionRequest>,
    ) -> Result<Response<Self::WaitExecutionStream>, Status> {
        self.0.count("wait", 1);
        let name = request.into_inner().name;
        let operation = self.0.operations.lock().unwrap().get(&name).cloned();
        let operation = operation.ok_or_else(|| Status::not_found("no such operation"))?;
        Ok(Response::new(follow(name, operation, false)))
    }
}

/// Tells what becomes of an operation; one that is `loose` breaks off once it has begun.
fn follow(name: String, mut operation: Operation, loose: bool) -> Pieces<operations::Operation> {
    let (sender, pieces) = mpsc::channel(4);
    tokio::spawn(async move {
        let begun = operations::Operation {
            name: name.clone(),
            metadata: Some(any(
                "ExecuteOperationMetadata",
                &api::ExecuteOperationMetadata::default(),
            )),
            ..operations::Operation::default()
        };
        let _ = sender.send(Ok(begun.clone())).await;
        if loose {
            let _ = sender.send(Err(Status::unavailable("a cable came loose"))).await;
            return;
        }
        let response = tokio::select! {
            response = operation.wait_for(Option::is_some) => response.map(|response| (*response).clone()).ok().flatten(),
            () = sender.closed() => None,
        };
        let last = match response {
            None => return,
            Some(Err(status)) => Err(status),
            Some(Ok(response)) => Ok(operations::Operation {
                done: true,
                result: Some(operations::operation::Result::Response(any(
                    "ExecuteResponse",
                    &response,
                ))),
                ..begun
            }),
        };
        let _ = sender.send(last).await;
    });
    ReceiverStream::new(pieces)
}

/// A message as one of any type.
pub fn any(kind: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/build.bazel.remote.execution.v2.{kind}"),
        value: message.encode_to_vec(),
    }
}

#[tonic::async_trait]
impl operations::operations_server::Operations for Services {
    async fn list_operations(
        &self,
        _: Request<operations::ListOperationsRequest>,
    ) -> Result<Response<operations::ListOperationsResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn get_operation(
        &self,
        _: Request<operations::GetOperationRequest>,
    ) -> Result<Response<operations::Operation>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn delete_operation(
        &self,
        _: Request<operations::DeleteOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn cancel_operation(
        &self,
        request: Request<operations::CancelOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        self.0.count(&format!("cancel {}", request.get_ref().name), 1);
        self.0.count("cancel", 1);
        Ok(Response::new(Empty {}))
    }

    async fn wait_operation(
        &self,
        _: Request<operations::WaitOperationRequest>,
    ) -> Result<Response<operations::Operation>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}
