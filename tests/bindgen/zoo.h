// One of everything that a C header can hold and bindgen has to get right.
#ifndef ZOO_H
#define ZOO_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ZOO_API __attribute__((visibility("default"))) extern
#define DEPRECATED(func, hint) func __attribute__((deprecated(hint)))

//
// constants
//

#define ZOO_INT 7 // seven of them
#define ZOO_HEX 0xFFFFFFFFu
#define ZOO_NEGATIVE (-3)
#define ZOO_BIG (1ULL << 63)
#define ZOO_SUM (ZOO_INT + \
                 1)
#define ZOO_CHAR 'z'
#define ZOO_SIZE (sizeof(struct zoo_animal) * 2)
#define ZOO_CAST ((zoo_id) -1)
#define ZOO_CAST_FLOAT ((float) 1)
#define ZOO_ENUM ZOO_KIND_CAT
#define ZOO_PI 3.25f
#define ZOO_HALF (ZOO_PI / 2)
#define ZOO_NAME "zoo"
#define ZOO_PATH ZOO_NAME "/animals"
#define ZOO_ALIAS ZOO_SUM

#define ZOO_EMPTY
#define ZOO_MAX(a, b) ((a) > (b) ? (a) : (b))
#define ZOO_NULL ((struct zoo_animal *) 0)
#define ZOO_NOTHING ((void) 0)
#define ZOO_INITIALIZER { 1, 2 }
#define ZOO_TYPE int
#define ZOO_LOOP ZOO_LOOP
#define ZOO_GONE 1
#undef ZOO_GONE

static const int    ZOO_STATIC       = 41 + 1;
static const double ZOO_STATIC_FLOAT = 0.5;
static const char * const ZOO_STATIC_NAME = "static";

typedef int32_t zoo_id;
typedef uint16_t zoo_half_t;

// What an animal is.
enum zoo_kind {
    ZOO_KIND_NONE  = -1, // no animal
    ZOO_KIND_CAT   = 1 << 1,
    ZOO_KIND_TIGER = ZOO_KIND_CAT, // the same value again
    ZOO_KIND_DOG,
    ZOO_KIND_MAX   = (int) sizeof(int64_t) * 5,
};

typedef enum { ZOO_MOOD_GOOD, ZOO_MOOD_BAD } zoo_mood;

enum { ZOO_UNNAMED = 11 };

//
// structs
//

struct zoo_hidden; // nobody sees inside
typedef struct zoo_cage * zoo_cage_t;

typedef struct {
    float x, y;
} zoo_point;

struct zoo_animal {
    enum zoo_kind kind;         // which one
    zoo_mood      mood;
    char          name[4 * ZOO_SUM];
    int8_t        legs[2][ZOO_KIND_CAT + 1];
    bool          alive;
    const char *  sound;        // what it says,
                                // and says again
    const char ** foods;
    void *        extra;
    zoo_point     at;
    zoo_point     path[2];
    struct zoo_animal * next;
    const struct zoo_animal * friends[3];

    union {
        int64_t as_int;
        double  as_double;
        struct {
            uint8_t low;
            uint8_t high;
        };
    };

    union {
        float    f;
        uint32_t u;
    } bits;

    struct { int hour, minute; } feeding[3];

    struct zoo_owner { zoo_id id; } owner;

    enum zoo_diet { ZOO_DIET_MEAT = 5, ZOO_DIET_HAY } diet;

    bool (*bite)(struct zoo_animal * self, const zoo_id * who, size_t count);
};

struct zoo_flags {
    unsigned int age : 5;
    unsigned int wild : 1;
};

typedef struct zoo_pair {
    zoo_id first;
    zoo_id second;
} zoo_pair_t;

typedef union zoo_any {
    int   i;
    float f;
} zoo_any;

//
// functions
//

// Called for each animal.
// Returning false ends the visit.
typedef bool (*zoo_visit)(struct zoo_animal * animal, void * user_data);
typedef int zoo_compare(const void * a, const void * b);
typedef void (*zoo_report)(enum zoo_kind kind, const char * text, void * user_data);
typedef zoo_point (*zoo_move)(zoo_point from, float by);

// The sum of two ids.
ZOO_API zoo_id zoo_add(zoo_id a, zoo_id b);

ZOO_API struct zoo_flags zoo_flags_of(int age, bool wild);
ZOO_API struct zoo_animal zoo_make(enum zoo_kind kind, const char * name);
ZOO_API zoo_id zoo_visit_all(struct zoo_animal * first, zoo_visit visit, void * user_data);
ZOO_API void zoo_sort(int * values, size_t count, zoo_compare * compare);
ZOO_API int zoo_apply(int f(int), int value);
ZOO_API float zoo_total(const float * values, int n);
ZOO_API void zoo_scale(float values[ZOO_SUM - 6], float by);
ZOO_API const char * zoo_first(const char ** names, size_t n);
ZOO_API size_t zoo_fill(void * memory, const void * from, size_t size);
ZOO_API void zoo_write(char * text, size_t size);
ZOO_API zoo_pair_t zoo_swap(zoo_pair_t pair);
ZOO_API zoo_point zoo_walk(zoo_move move, zoo_point from);
ZOO_API long unsigned int zoo_long(long unsigned value);
ZOO_API int zoo_printf(char * text, size_t size, const char * format, ...);
ZOO_API bool zoo_save(FILE * file, const char * text);
ZOO_API zoo_cage_t zoo_cage_open(void);
ZOO_API void zoo_cage_close(zoo_cage_t cage);
ZOO_API zoo_visit zoo_default_visit(void);
ZOO_API bool zoo_same(const uint8_t (*a)[4], const uint8_t (*b)[4]);
ZOO_API void zoo_keywords(int from, int lambda, int self, int);
ZOO_API enum zoo_kind zoo_kind_of(const struct zoo_hidden * hidden);

DEPRECATED(ZOO_API int zoo_old_1(int x), "use zoo_add " "instead");
ZOO_API DEPRECATED(int zoo_old_2(
        int x,
        int y), "use \"zoo_add\"");
ZOO_API int zoo_new(int x);

static inline int zoo_twice(int x) {
    return x * 2;
}

// declared, and in no library
ZOO_API int zoo_missing(int x);

#endif
