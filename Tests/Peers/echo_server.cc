// A grpc++ server whose only call answers at once: what a unary call costs in grpc++, with nothing behind it.
// Usage: echo_server HOST:PORT. PushToClient gives the message back in `error`; Health/Check answers too. Ends on SIGTERM.

#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>

#include "push/v1/push.grpc.pb.h"

namespace {

using push::v1::PushRequest;
using push::v1::PushResponse;
using push::v1::PushService;

// The asynchronous interface with one completion queue a thread: the fastest that grpc++ 1.51 has for unary calls.
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

constexpr int kThreads = 1;
constexpr int kCallsAtOnce = 2000;

void Serve(PushService::AsyncService* service, grpc::ServerCompletionQueue* queue) {
  for (int i = 0; i < kCallsAtOnce; ++i) new Call(service, queue);
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) static_cast<Call*>(tag)->Proceed(ok);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: echo_server HOST:PORT\n");
    return 64;
  }
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // Before any thread is made: all inherit it, and sigwait gets the signal.

  grpc::EnableDefaultHealthCheckService(true);
  PushService::AsyncService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(argv[1], grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  for (int i = 0; i < kThreads; ++i) queues.push_back(builder.AddCompletionQueue());
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) {
    std::fprintf(stderr, "echo_server: cannot listen on %s\n", argv[1]);
    return 1;
  }
  std::printf("%d\n", port);
  std::fflush(stdout);

  std::vector<std::thread> threads;
  for (auto& queue : queues) threads.emplace_back(Serve, &service, queue.get());
  int signal = 0;
  sigwait(&ends, &signal);
  server->Shutdown();
  for (auto& queue : queues) queue->Shutdown();
  for (auto& thread : threads) thread.join();
  return 0;
}
