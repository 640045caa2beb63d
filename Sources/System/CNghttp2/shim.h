// What Swift needs of Nghttp2: the library's header, and static inline helpers for what can't be imported.
#pragma once
#include <nghttp2/nghttp2.h>
