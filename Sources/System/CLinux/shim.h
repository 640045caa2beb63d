// What the Swift overlay of glibc lacks: epoll, eventfd, and the calls whose C shape (macros, variadics) can't be imported.
#pragma once
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

// accept4 is declared for _GNU_SOURCE only, which may not differ from the overlay's own view of the same headers.
extern int accept4(int descriptor, struct sockaddr *address, socklen_t *length, int flags);

static inline int fp_set_thread_name(const char *name) { return prctl(PR_SET_NAME, name, 0, 0, 0); }

// epoll_event is packed on x86-64; reading its union through these keeps Swift from making an unaligned pointer.
static inline void fp_epoll_event_set(struct epoll_event *event, uint32_t events, uint64_t data) {
  event->events = events;
  event->data.u64 = data;
}
static inline uint64_t fp_epoll_event_data(const struct epoll_event *event) { return event->data.u64; }
static inline uint32_t fp_epoll_event_events(const struct epoll_event *event) { return event->events; }
