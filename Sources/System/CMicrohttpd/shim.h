// What Swift needs of libmicrohttpd: the library's header, and what can't be imported of it (variadics, flag macros).
#pragma once
#include <microhttpd.h>
#include <stdarg.h>

// The library reports through this instead of printing to stderr; every failure that matters is a return code as well.
static inline void fp_mhd_ignore_log(void *cls, const char *format, va_list arguments) {
  (void)cls;
  (void)format;
  (void)arguments;
}

// Starts a daemon with a thread of its own (epoll) on a socket that listens already. Returns NULL on failure.
static inline struct MHD_Daemon *fp_mhd_start(
    int listen_socket, MHD_AccessHandlerCallback handler, void *context, unsigned int connections,
    unsigned int timeout_seconds, size_t connection_memory) {
  return MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG, 0, NULL, NULL, handler, context,
      MHD_OPTION_EXTERNAL_LOGGER, &fp_mhd_ignore_log, NULL,  // has to come first to hear of the other options
      MHD_OPTION_LISTEN_SOCKET, listen_socket,
      MHD_OPTION_CONNECTION_LIMIT, connections,
      MHD_OPTION_CONNECTION_TIMEOUT, timeout_seconds,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, connection_memory,
      MHD_OPTION_END);
}
