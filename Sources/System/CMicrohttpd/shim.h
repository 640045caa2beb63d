// What Swift needs of Microhttpd: the library's header, and static inline helpers for what can't be imported.
#pragma once
#include <microhttpd.h>
