// What Swift needs of Hiredis: the library's header, and static inline helpers for what can't be imported.
#pragma once
#include <hiredis/hiredis.h>
