// What Swift needs of RdKafka: the library's headers, and static inline helpers for what can't be imported.
#pragma once
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

// rd_kafka_producev is variadic. The payload and the key are copied before it returns; `headers` (may be NULL) becomes
// librdkafka's when it returns RD_KAFKA_RESP_ERR_NO_ERROR and stays the caller's otherwise.
static inline rd_kafka_resp_err_t fp_kafka_produce(rd_kafka_t *client, const char *topic, int32_t partition,
                                                   const void *key, size_t key_length, const void *value,
                                                   size_t value_length, rd_kafka_headers_t *headers, void *opaque) {
  if (headers)
    return rd_kafka_producev(client, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition),
                             RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(key, key_length),
                             RD_KAFKA_V_VALUE((void *)value, value_length), RD_KAFKA_V_HEADERS(headers),
                             RD_KAFKA_V_OPAQUE(opaque), RD_KAFKA_V_END);
  return rd_kafka_producev(client, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition),
                           RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(key, key_length),
                           RD_KAFKA_V_VALUE((void *)value, value_length), RD_KAFKA_V_OPAQUE(opaque),
                           RD_KAFKA_V_END);
}

// The descriptor that librdkafka writes to when a queue stops being empty: EFD_NONBLOCK is an enum that Swift's view of
// glibc doesn't have. Returns -1 with errno.
#include <sys/eventfd.h>
static inline int fp_kafka_wakeup(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
