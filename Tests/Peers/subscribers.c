// Subscribers and the publisher of a fan-out, from one thread and one epoll, for each kind of server the same; and the
// barest server that there can be, to measure against.
//
//   subscribers bare HOST:PORT BYTES
//       Serves: messages of BYTES bytes, as many as have come, go to each subscriber with one send().
//   subscribers drive KIND HOST:PORT COUNT BYTES
//       KIND: bare, redis, nats, mosquitto, fleetpush. Opens COUNT subscriptions and a publisher, prints "ready"; then for
//       each line "ROUNDS BACKLOG" publishes BACKLOG messages of BYTES bytes at once, waits until every subscriber has
//       had them all, does so ROUNDS times, and prints the nanoseconds that it took.
//
// Subscribers count bytes, where a delivery's length is fixed and nothing comes between; NATS's MSG lines; and in the gRPC
// streams messages of at least BYTES bytes. These give credit as grpc libraries do: when half of a window of 1 MiB is used.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024, EVENTS = 1024, OPENING = 64, WINDOW = 1 << 20, HEARTBEAT_SECONDS = 5, PATIENCE_MS = 60000 };
enum kind { BARE, REDIS, NATS, MOSQUITTO, FLEETPUSH, KINDS };
static const char *const kind_names[KINDS] = {"bare", "redis", "nats", "mosquitto", "fleetpush"};

struct peer {
  int fd;
  int is_ready;
  uint64_t received;  // since it was ready: deliveries where other things come between them, else bytes
  // The handshake's end as far as it is here, and the frame and message that bytes are in the middle of.
  unsigned char head[16];
  unsigned head_length;
  uint32_t frame_left, stream;
  unsigned char frame_type, frame_flags;
  unsigned char message_head[5];
  unsigned message_head_length;
  uint32_t message_length, message_left;
  uint32_t stream_used, connection_used;
  unsigned char ping[8];
  unsigned ping_length;
};

static enum kind kind;
static struct sockaddr_in address;
static int epoll_fd;
static struct peer *peers, publisher;
static int count, message_bytes, ready_count;
static uint64_t total, answers;
static unsigned char buffer[BUFFER];

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "subscribers: ");
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void watch(int fd, void *owner) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl: %s", strerror(errno));
}

static void set_nonblocking(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(fd, F_SETFL, O_NONBLOCK);
}

// Waits in the middle of a write when the server is slower; only the publisher can get there.
static void send_all(int fd, const void *bytes, size_t length) {
  while (length > 0) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent > 0) {
      bytes = (const char *)bytes + sent;
      length -= (size_t)sent;
    } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      fail("send: %s", strerror(errno));
    }
  }
}

// The bare server

static int *subscriber_fds, subscriber_count;

// The first byte says who it is: a subscriber, which is answered, or the publisher.
static int introduce(int fd) {
  char who;
  while (recv(fd, &who, 1, 0) < 0 && errno == EAGAIN) {
  }
  set_nonblocking(fd);
  if (who == 'P') return 1;
  subscriber_fds = realloc(subscriber_fds, sizeof(int) * (size_t)(subscriber_count + 1));
  subscriber_fds[subscriber_count++] = fd;
  send_all(fd, "S", 1);
  return 0;
}

static void serve_bare(int size) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0)
    fail("listen: %s", strerror(errno));
  epoll_fd = epoll_create1(0);
  watch(listener, NULL);
  int publishers[2] = {-1, -1};
  size_t held = 0;
  struct epoll_event events[EVENTS];
  for (;;) {
    int number = epoll_wait(epoll_fd, events, EVENTS, -1);
    for (int i = 0; i < number; i++) {
      if (!events[i].data.ptr) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && introduce(fd)) {
          publishers[0] = fd;
          watch(fd, publishers);
        }
        continue;
      }
      ssize_t got = recv(publishers[0], buffer + held, sizeof buffer - held, 0);
      if (got <= 0) exit(0);
      held += (size_t)got;
      size_t whole = held / (size_t)size * (size_t)size;
      if (whole > 0)
        for (int s = 0; s < subscriber_count; s++) send_all(subscriber_fds[s], buffer, whole);
      held -= whole;
      memmove(buffer, buffer + whole, held);
    }
  }
}

// HTTP/2 and gRPC, as far as a client that knows its server needs them

static unsigned char *frame(unsigned char *at, unsigned length, int type, int flags, uint32_t stream) {
  unsigned char head[9] = {length >> 16, length >> 8, length, type, flags, stream >> 24, stream >> 16, stream >> 8, stream};
  memcpy(at, head, 9);
  return at + 9;
}

static unsigned char *literal(unsigned char *at, const char *text) {
  *at++ = (unsigned char)strlen(text);
  memcpy(at, text, strlen(text));
  return at + strlen(text);
}

static unsigned char *preface(unsigned char *at) {
  memcpy(at, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
  at = frame(at + 24, 6, 4, 0, 0);
  unsigned char window[6] = {0, 4, WINDOW >> 24, WINDOW >> 16 & 255, WINDOW >> 8 & 255, WINDOW & 255};
  memcpy(at, window, 6);
  at = frame(at + 6, 4, 8, 0, 0);
  uint32_t more = htonl(WINDOW - 65535);
  memcpy(at, &more, 4);
  return at + 4;
}

static unsigned char *request(unsigned char *at, const char *path, uint32_t stream) {
  unsigned char *start = at;
  at += 9;
  *at++ = 0x83;  // :method POST
  *at++ = 0x86;  // :scheme http
  *at++ = 0x04;  // :path
  at = literal(at, path);
  *at++ = 0x01;  // :authority
  at = literal(at, "bench");
  *at++ = 0x0f;  // content-type
  *at++ = 0x10;
  at = literal(at, "application/grpc");
  *at++ = 0x00;
  at = literal(at, "te");
  at = literal(at, "trailers");
  frame(start, (unsigned)(at - start) - 9, 1, 4, stream);
  return at;
}

static unsigned char *message(unsigned char *at, const void *bytes, unsigned length, int flags, uint32_t stream) {
  at = frame(at, length + 5, 0, flags, stream);
  unsigned char head[5] = {0, length >> 24, length >> 16, length >> 8, length};
  memcpy(at, head, 5);
  memcpy(at + 5, bytes, length);
  return at + 5 + length;
}

static unsigned varint(unsigned char *at, uint64_t value) {
  unsigned length = 0;
  for (; value > 127; value >>= 7) at[length++] = value | 128;
  at[length++] = (unsigned char)value;
  return length;
}

// A field with a length before it.
static unsigned field(unsigned char *at, int tag, const void *bytes, unsigned length) {
  at[0] = (unsigned char)tag;
  unsigned head = 1 + varint(at + 1, length);
  memcpy(at + head, bytes, length);
  return head + length;
}

static unsigned submit_request(unsigned char *at) {
  unsigned char text[2048], job[4096], content[2048];
  memset(text, 'x', sizeof text);
  unsigned length = field(job, 0x12, "\x10\x01", 2);  // targets: all
  length += field(job + length, 0x1a, content, field(content, 0x0a, text, (unsigned)message_bytes));
  // Without a qos it is best effort.
  return field(at, 0x0a, job, length);
}

static void send_heartbeats(void) {
  for (int i = 0; i < count; i++) {
    char name[32];
    unsigned char beat[64], whole[80], out[128];
    unsigned length = field(beat, 0x0a, name, (unsigned)snprintf(name, sizeof name, "bench-%d", i));
    beat[length++] = 0x10;
    length += varint(beat + length, (uint64_t)time(NULL) * 1000);
    length = field(whole, 0x12, beat, length);
    send_all(peers[i].fd, out, (size_t)(message(out, whole, length, 0, 1) - out));
  }
}

static void give_credit(struct peer *peer, uint32_t length) {
  unsigned char out[32], *at = out;
  uint32_t *used[2] = {&peer->connection_used, &peer->stream_used};
  for (int i = 0; i < 2; i++) {
    *used[i] += length;
    // The publisher's streams are short.
    if (*used[i] < WINDOW / 2 || (i == 1 && peer == &publisher)) continue;
    at = frame(at, 4, 8, 0, i == 0 ? 0 : peer->stream);
    uint32_t back = htonl(*used[i]);
    memcpy(at, &back, 4);
    at += 4;
    *used[i] = 0;
  }
  if (at > out) send_all(peer->fd, out, (size_t)(at - out));
}

static void messages_received(struct peer *peer, const unsigned char *bytes, uint32_t length) {
  while (length > 0) {
    if (peer->message_head_length < 5) {
      peer->message_head[peer->message_head_length++] = *bytes++;
      length--;
      if (peer->message_head_length < 5) continue;
      uint32_t size;
      memcpy(&size, peer->message_head + 1, 4);
      peer->message_length = peer->message_left = ntohl(size);
    }
    uint32_t part = length < peer->message_left ? length : peer->message_left;
    peer->message_left -= part;
    bytes += part;
    length -= part;
    if (peer->message_left > 0) return;
    peer->message_head_length = 0;
    if (peer->message_length >= (uint32_t)message_bytes) {
      peer->received++;
      total++;
    } else if (!peer->is_ready) {
      peer->is_ready = 1;
      ready_count++;
    }
  }
}

// SETTINGS and PING are answered, DATA is cut into messages, the end of the publisher's calls is counted.
static void frame_begun(struct peer *peer) {
  if (peer->frame_type == 3 && peer != &publisher) fail("a stream was reset");
  if (peer->frame_type == 7) fail("the server sent GOAWAY");
  if (peer->frame_type == 4 && !(peer->frame_flags & 1)) {
    unsigned char out[9];
    frame(out, 0, 4, 1, 0);
    send_all(peer->fd, out, 9);
  }
  if (peer->frame_type == 1 && peer->frame_flags & 1) {
    if (peer != &publisher) fail("the server ended a stream");
    answers++;
    if (!peer->is_ready) fail("the publisher's call was refused");
  }
  if (peer == &publisher && peer->frame_type == 1) peer->is_ready = 1;
  peer->ping_length = 0;
}

static void frames_received(struct peer *peer, const unsigned char *bytes, size_t length) {
  while (length > 0) {
    if (peer->head_length < 9) {
      peer->head[peer->head_length++] = *bytes++;
      length--;
      if (peer->head_length < 9) continue;
      const unsigned char *head = peer->head;
      peer->frame_left = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
      peer->frame_type = head[3];
      peer->frame_flags = head[4];
      peer->stream = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
      frame_begun(peer);
    }
    uint32_t part = length < peer->frame_left ? (uint32_t)length : peer->frame_left;
    if (peer->frame_type == 0) {
      if (peer != &publisher) messages_received(peer, bytes, part);
      give_credit(peer, part);
    } else if (peer->frame_type == 6 && !(peer->frame_flags & 1)) {
      memcpy(peer->ping + peer->ping_length, bytes, part);
      peer->ping_length += part;
      if (peer->ping_length == 8) {
        unsigned char out[17];
        memcpy(frame(out, 8, 6, 1, 0), peer->ping, 8);
        send_all(peer->fd, out, 17);
      }
    }
    bytes += part;
    length -= part;
    peer->frame_left -= part;
    if (peer->frame_left == 0) peer->head_length = 0;
  }
}

// NATS asks for signs of life between its messages.
static void lines_received(struct peer *peer, const unsigned char *bytes, size_t length) {
  while (length > 0) {
    if (peer->message_left > 0) {
      uint32_t part = length < peer->message_left ? (uint32_t)length : peer->message_left;
      peer->message_left -= part;
      bytes += part;
      length -= part;
      if (peer->message_left > 0) return;
      peer->received++;
      total++;
      continue;
    }
    if (peer->head_length < sizeof peer->head) peer->head[peer->head_length++] = *bytes;
    length--;
    if (*bytes++ != '\n') continue;
    peer->head_length = 0;
    if (memcmp(peer->head, "MSG ", 4) == 0) peer->message_left = (uint32_t)message_bytes + 2;
    if (memcmp(peer->head, "PING", 4) == 0) send_all(peer->fd, "PONG\r\n", 6);
    if (memcmp(peer->head, "-ERR", 4) == 0) fail("the server has refused something");
    if (memcmp(peer->head, "PONG", 4) == 0) {
      peer->is_ready = 1;
      ready_count++;
    }
  }
}

// What each kind says to subscribe, how the answer to that ends, what it publishes, and how long a delivery is

static size_t subscription(unsigned char *out, int index) {
  unsigned char whole[128], inner[96], *at = out;
  char name[32];
  switch (kind) {
    case BARE: return (size_t)sprintf((char *)out, "S");
    case REDIS: return (size_t)sprintf((char *)out, "SUBSCRIBE bench\r\n");
    case NATS: return (size_t)sprintf((char *)out, "CONNECT {\"verbose\":false}\r\nSUB bench 1\r\nPING\r\n");
    case MOSQUITTO: {
      // An empty client id with a clean session: the server makes one up.
      static const unsigned char connect[] = {0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, 0};
      static const unsigned char subscribe[] = {0x82, 10, 0, 1, 0, 5, 'b', 'e', 'n', 'c', 'h', 0};
      memcpy(out, connect, sizeof connect);
      memcpy(out + sizeof connect, subscribe, sizeof subscribe);
      return sizeof connect + sizeof subscribe;
    }
    default: break;
  }
  unsigned length = field(inner, 0x0a, name, (unsigned)snprintf(name, sizeof name, "bench-%d", index));
  length = field(whole, 0x0a, inner, length);
  at = request(preface(at), "/push.v1.PushService/Connect", 1);
  return (size_t)(message(at, whole, length, 0, 1) - out);
}

static size_t introduction(unsigned char *out) {
  static const unsigned char connect[] = {0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, 0};
  switch (kind) {
    case BARE: return (size_t)sprintf((char *)out, "P");
    case REDIS: return 0;
    case NATS: return (size_t)sprintf((char *)out, "CONNECT {\"verbose\":false}\r\n");
    case MOSQUITTO: return memcpy(out, connect, sizeof connect), sizeof connect;
    default: return (size_t)(preface(out) - out);
  }
}

static unsigned char *publication(unsigned char *out) {
  static uint32_t stream = 1;
  unsigned char body[4096], *at = out;
  switch (kind) {
    case BARE: break;
    case REDIS: at += sprintf((char *)at, "*3\r\n$7\r\nPUBLISH\r\n$5\r\nbench\r\n$%d\r\n", message_bytes); break;
    case NATS: at += sprintf((char *)at, "PUB bench %d\r\n", message_bytes); break;
    case MOSQUITTO:
      *at++ = 0x30;
      at += varint(at, 7 + (unsigned)message_bytes);
      memcpy(at, "\0\5bench", 7);
      at += 7;
      break;
    default:
      at = request(at, "/push.v1.JobService/Submit", stream);
      at = message(at, body, submit_request(body), 1, stream);
      stream += 2;
      return at;
  }
  memset(at, 'x', (size_t)message_bytes);
  at += message_bytes;
  if (kind == REDIS || kind == NATS) at += sprintf((char *)at, "\r\n");
  return at;
}

// The last bytes of the answer to a subscription.
static const char *answer_end(size_t *length) {
  static const char *const ends[] = {"S", ":1\r\n", "", "\x90\3\0\1"};  // The last with its 0.
  static const size_t lengths[] = {1, 4, 0, 5};
  *length = lengths[kind];
  return ends[kind];
}

static uint64_t delivery_bytes(void) {
  char digits[16];
  uint64_t size = (uint64_t)message_bytes, length = (uint64_t)snprintf(digits, sizeof digits, "%d", message_bytes);
  switch (kind) {
    case BARE: return size;
    case REDIS: return 4 + 4 + 9 + 4 + 7 + 1 + length + 2 + size + 2;
    case MOSQUITTO: return 1 + (size + 7 > 127 ? 2 : 1) + 7 + size;
    default: return 1;
  }
}

// Driving

static void received(struct peer *peer, const unsigned char *bytes, size_t length) {
  if (kind == FLEETPUSH) return frames_received(peer, bytes, length);
  if (kind == NATS) return lines_received(peer, bytes, length);
  if (peer == &publisher) return;
  if (peer->is_ready) {
    peer->received += length;
    total += length;
    return;
  }
  size_t wanted;
  const char *end = answer_end(&wanted);
  for (size_t i = 0; i < length; i++) {
    memmove(peer->head, peer->head + 1, wanted - 1);
    peer->head[wanted - 1] = bytes[i];
  }
  if (memcmp(peer->head, end, wanted) != 0) return;
  peer->is_ready = 1;
  ready_count++;
}

static int open_peer(struct peer *peer) {
  peer->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (peer->fd < 0 || connect(peer->fd, (struct sockaddr *)&address, sizeof address) != 0)
    fail("connect: %s", strerror(errno));
  set_nonblocking(peer->fd);
  watch(peer->fd, peer);
  return peer->fd;
}

// One wait and what it brings.
static void turn(void) {
  static struct epoll_event events[EVENTS];
  int number = epoll_wait(epoll_fd, events, EVENTS, PATIENCE_MS);
  if (number == 0) fail("nothing came for %d s", PATIENCE_MS / 1000);
  for (int i = 0; i < number; i++) {
    struct peer *peer = events[i].data.ptr;
    if (!peer) continue;
    ssize_t got = recv(peer->fd, buffer, sizeof buffer, 0);
    if (got > 0)
      received(peer, buffer, (size_t)got);
    else if (got == 0 || (errno != EAGAIN && errno != EINTR))
      fail("the server closed a connection");
  }
}

static void open_all(void) {
  unsigned char out[1024];
  for (int i = 0; i < count; i++) {
    send_all(open_peer(&peers[i]), out, subscription(out, i));
    while (i + 1 - ready_count >= OPENING) turn();
  }
  while (ready_count < count) turn();
  send_all(open_peer(&publisher), out, introduction(out));
}

static void publish(int rounds, int backlog) {
  unsigned char *out = malloc((size_t)backlog * ((size_t)message_bytes + 512));
  while (rounds-- > 0) {
    unsigned char *at = out;
    for (int i = 0; i < backlog; i++) at = publication(at);
    uint64_t expected = total + (uint64_t)backlog * (uint64_t)count * delivery_bytes();
    uint64_t answered = answers + (kind == FLEETPUSH ? (uint64_t)backlog : 0);
    send_all(publisher.fd, out, (size_t)(at - out));
    while (total < expected || answers < answered) turn();
    if (total > expected) fail("more was delivered than published");
  }
  free(out);
  for (int i = 1; i < count; i++)
    if (peers[i].received != peers[0].received) fail("subscriber %d has had another number than subscriber 0", i);
}

// Between two lines the connections stay alive: pings are answered, and gRPC streams send their heartbeats.
static void drive(void) {
  char line[64];
  time_t beaten = time(NULL);
  open_all();
  printf("ready\n");
  fflush(stdout);
  watch(0, NULL);
  for (;;) {
    struct epoll_event events[EVENTS];
    int number = epoll_wait(epoll_fd, events, EVENTS, 1000), has_line = 0;
    for (int i = 0; i < number; i++) {
      struct peer *peer = events[i].data.ptr;
      if (!peer) {
        has_line = 1;
        continue;
      }
      ssize_t got = recv(peer->fd, buffer, sizeof buffer, 0);
      if (got > 0) received(peer, buffer, (size_t)got);
      if (got == 0) fail("the server closed a connection");
    }
    if (kind == FLEETPUSH && time(NULL) - beaten >= HEARTBEAT_SECONDS) {
      send_heartbeats();
      beaten = time(NULL);
    }
    if (!has_line) continue;
    int rounds, backlog;
    if (!fgets(line, sizeof line, stdin)) return;
    if (sscanf(line, "%d %d", &rounds, &backlog) != 2) fail("not understood: %s", line);
    uint64_t start = now_ns();
    publish(rounds, backlog);
    printf("%llu\n", (unsigned long long)(now_ns() - start));
    fflush(stdout);
  }
}

static void parse_address(char *text) {
  char *colon = strrchr(text, ':');
  if (!colon) fail("HOST:PORT is wanted, not %s", text);
  *colon = 0;
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)atoi(colon + 1));
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) fail("no IPv4 address: %s", text);
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "bare") == 0) {
    parse_address(argv[2]);
    serve_bare(atoi(argv[3]));
  }
  if (argc != 6 || strcmp(argv[1], "drive") != 0)
    fail("bare HOST:PORT BYTES | drive KIND HOST:PORT COUNT BYTES");
  while (kind < KINDS && strcmp(argv[2], kind_names[kind]) != 0) kind++;
  parse_address(argv[3]);
  count = atoi(argv[4]);
  message_bytes = atoi(argv[5]);
  if (kind == KINDS || count < 1 || message_bytes < 1 || message_bytes > 1024) fail("bad arguments");
  epoll_fd = epoll_create1(0);
  peers = calloc((size_t)count, sizeof *peers);
  setvbuf(stdin, NULL, _IONBF, 0);
  drive();
  return 0;
}
