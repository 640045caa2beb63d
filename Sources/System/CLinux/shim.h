// What the Swift overlay of glibc lacks: epoll, eventfd, and the calls whose C shape (macros, variadics) can't be imported.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

// epoll_event is packed on x86-64; reading its union through these keeps Swift from making an unaligned pointer.
static inline void fp_epoll_event_set(struct epoll_event *event, uint32_t events, uint64_t data) {
  event->events = events;
  event->data.u64 = data;
}
static inline uint64_t fp_epoll_event_data(const struct epoll_event *event) { return event->data.u64; }
static inline uint32_t fp_epoll_event_events(const struct epoll_event *event) { return event->events; }
