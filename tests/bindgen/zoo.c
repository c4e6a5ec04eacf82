#include "zoo.h"

#include <stdlib.h>
#include <string.h>

struct zoo_cage { int animals; };
struct zoo_hidden { enum zoo_kind kind; };

static bool bite(struct zoo_animal * self, const zoo_id * who, size_t count) {
    return self->alive && count == 2 && who[1] == 9;
}
static bool visit(struct zoo_animal * animal, void * user_data) { return animal == user_data; }

zoo_id zoo_add(zoo_id a, zoo_id b) { return a + b; }
struct zoo_flags zoo_flags_of(int age, bool wild) { return (struct zoo_flags) { age, wild }; }
struct zoo_animal zoo_make(enum zoo_kind kind, const char * name) {
    struct zoo_animal animal = { .kind = kind, .alive = true, .bite = bite };
    strncpy(animal.name, name, sizeof(animal.name) - 1);
    animal.as_int = 0x0201;
    animal.feeding[2].minute = 30;
    animal.bits.f = 1.0f;
    return animal;
}
zoo_id zoo_visit_all(struct zoo_animal * first, zoo_visit visit, void * user_data) {
    zoo_id n = 0;
    for (; first && visit(first, user_data); first = first->next) { n++; }
    return n;
}
void zoo_sort(int * values, size_t count, zoo_compare * compare) { qsort(values, count, sizeof(int), compare); }
int zoo_apply(int f(int), int value) { return f(value); }
float zoo_total(const float * values, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) { sum += values[i]; }
    return sum;
}
void zoo_scale(float values[ZOO_SUM - 6], float by) { values[0] *= by; values[1] *= by; }
const char * zoo_first(const char ** names, size_t n) { return n ? names[0] : NULL; }
size_t zoo_fill(void * memory, const void * from, size_t size) { memcpy(memory, from, size); return size; }
void zoo_write(char * text, size_t size) { snprintf(text, size, "written"); }
zoo_pair_t zoo_swap(zoo_pair_t pair) { return (zoo_pair_t) { pair.second, pair.first }; }
zoo_point zoo_walk(zoo_move move, zoo_point from) { return move(from, 0.5f); }
long unsigned int zoo_long(long unsigned value) { return value; }
int zoo_printf(char * text, size_t size, const char * format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, size, format, args);
    va_end(args);
    return n;
}
bool zoo_save(FILE * file, const char * text) { return fputs(text, file) >= 0 && fflush(file) == 0; }
zoo_cage_t zoo_cage_open(void) { return calloc(1, sizeof(struct zoo_cage)); }
void zoo_cage_close(zoo_cage_t cage) { free(cage); }
zoo_visit zoo_default_visit(void) { return visit; }
bool zoo_same(const uint8_t (*a)[4], const uint8_t (*b)[4]) { return memcmp(*a, *b, 4) == 0; }
void zoo_keywords(int from, int lambda, int self, int x) { (void) from; (void) lambda; (void) self; (void) x; }
enum zoo_kind zoo_kind_of(const struct zoo_hidden * hidden) { return hidden ? hidden->kind : ZOO_KIND_NONE; }
int zoo_old_1(int x) { return x; }
int zoo_old_2(int x, int y) { return x + y; }
int zoo_new(int x) { return x; }
