// What Swift needs of RdKafka: the library's header, and static inline helpers for what can't be imported.
#pragma once
#include <librdkafka/rdkafka.h>
