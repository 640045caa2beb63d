// A grpc++ server whose only call answers at once: what a unary call costs in grpc++, with nothing behind it.
// Usage: echo_server HOST:PORT sync|async. PushToClient gives the message back in `error`; Health/Check answers too. Ends on
// SIGTERM. `sync` is the interface that most servers use; `async` with one completion queue is the fastest that 1.51 has.

#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "push/v1/push.grpc.pb.h"

namespace {

using push::v1::PushRequest;
using push::v1::PushResponse;
using push::v1::PushService;

class SyncService final : public PushService::Service {
  grpc::Status PushToClient(grpc::ServerContext*, const PushRequest* request, PushResponse* response) override {
    response->set_success(true);
    response->set_error(request->message());
    return grpc::Status::OK;
  }
};

class Call {
 public:
  Call(PushService::AsyncService* service, grpc::ServerCompletionQueue* queue)
      : service_(service), queue_(queue), responder_(&context_) {
    service_->RequestPushToClient(&context_, &request_, &responder_, queue_, queue_, this);
  }

  // One step per event: a request has come, or its answer has gone out.
  void Proceed(bool ok) {
    if (answered_ || !ok) {
      delete this;
      return;
    }
    new Call(service_, queue_);
    response_.set_success(true);
    response_.set_error(std::move(*request_.mutable_message()));
    answered_ = true;
    responder_.Finish(response_, grpc::Status::OK, this);
  }

 private:
  PushService::AsyncService* service_;
  grpc::ServerCompletionQueue* queue_;
  grpc::ServerContext context_;
  PushRequest request_;
  PushResponse response_;
  grpc::ServerAsyncResponseWriter<PushResponse> responder_;
  bool answered_ = false;
};

constexpr int kCallsAtOnce = 2000;

void Serve(PushService::AsyncService* service, grpc::ServerCompletionQueue* queue) {
  for (int i = 0; i < kCallsAtOnce; ++i) new Call(service, queue);
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) static_cast<Call*>(tag)->Proceed(ok);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string kind = argc == 3 ? argv[2] : "";
  if (kind != "sync" && kind != "async") {
    std::fprintf(stderr, "usage: echo_server HOST:PORT sync|async\n");
    return 64;
  }
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // Before any thread is made: all inherit it, and sigwait gets the signal.

  grpc::EnableDefaultHealthCheckService(true);
  SyncService sync_service;
  PushService::AsyncService async_service;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(argv[1], grpc::InsecureServerCredentials(), &port);
  if (kind == "sync") {
    builder.RegisterService(&sync_service);
  } else {
    builder.RegisterService(&async_service);
    queue = builder.AddCompletionQueue();
  }
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) {
    std::fprintf(stderr, "echo_server: cannot listen on %s\n", argv[1]);
    return 1;
  }

  std::thread serving;
  if (queue) serving = std::thread(Serve, &async_service, queue.get());
  int signal = 0;
  sigwait(&ends, &signal);
  server->Shutdown();
  if (queue) {
    queue->Shutdown();
    serving.join();
  }
  return 0;
}
