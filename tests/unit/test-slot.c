/* SPDX-License-Identifier: Apache-2.0 */
#include <glib.h>
#include <pthread.h>

#include "passthrough/slot.h"

/*
 * The slot tables: an id works as long as its slot lives, and never again.
 */

typedef struct Item {
    PtSlot slot;
    uint64_t value; /* what its owner says; has to match the id */
} Item;

static Item *take_live(PtSlots *slots)
{
    Item *item = (Item *)(void *)pt_slots_take(slots);
    g_assert_nonnull(item);
    item->value = pt_slot_id(&item->slot);
    pt_slot_publish(&item->slot);
    return item;
}

static void unref(PtSlots *slots, PtSlot *slot)
{
    if (pt_slot_unref(slot)) {
        pt_slots_give(slots, slot);
    }
}

static void test_first_is_one(void)
{
    PtSlots slots;
    g_assert_cmpint(pt_slots_init(&slots, sizeof(Item)), ==, 0);
    Item *item = take_live(&slots);
    g_assert_cmpuint(pt_slot_id(&item->slot), ==, 1);
    g_assert_cmpuint(slots.n_in_use, ==, 1);
    pt_slots_clear(&slots);
    pt_slots_clear(&slots);
}

static void test_stale_ids(void)
{
    PtSlots slots;
    g_assert_cmpint(pt_slots_init(&slots, sizeof(Item)), ==, 0);
    uint64_t last = 0;
    for (int i = 0; i < 1000; i++) {
        Item *item = take_live(&slots);
        uint64_t id = pt_slot_id(&item->slot);
        g_assert_cmpuint(id, !=, last);
        g_assert_null(pt_slots_get(&slots, last));
        g_assert_true(pt_slots_get(&slots, id) == &item->slot);
        unref(&slots, &item->slot);
        g_assert_true(pt_slots_get(&slots, id) == &item->slot);
        unref(&slots, &item->slot);
        unref(&slots, &item->slot);
        g_assert_null(pt_slots_get(&slots, id));
        last = id;
    }
    /* One slot did for all. */
    g_assert_cmpuint(pt_slots_end(&slots), ==, 2);
    g_assert_cmpuint(slots.n_in_use, ==, 0);
    pt_slots_clear(&slots);
}

static void test_invented_ids(void)
{
    PtSlots slots;
    g_assert_cmpint(pt_slots_init(&slots, sizeof(Item)), ==, 0);
    take_live(&slots);
    const uint64_t ids[] = {0,
                            2,
                            1 | UINT64_C(1) << 32,
                            UINT64_C(1) << 32,
                            4095,
                            4096,
                            UINT32_MAX,
                            UINT64_MAX,
                            UINT64_MAX - 1,
                            UINT64_C(0xffffffff00000001),
                            UINT64_C(0x7fffffffffffffff)};
    for (size_t i = 0; i < G_N_ELEMENTS(ids); i++) {
        g_assert_null(pt_slots_get(&slots, ids[i]));
    }
    for (uint64_t i = 0; i < 64; i++) {
        PtSlot *slot = pt_slots_get(&slots, UINT64_C(1) << i);
        g_assert_true((slot != NULL) == (i == 0));
    }
    pt_slots_clear(&slots);
}

static void test_taken_is_not_found(void)
{
    PtSlots slots;
    g_assert_cmpint(pt_slots_init(&slots, sizeof(Item)), ==, 0);
    PtSlot *slot = pt_slots_take(&slots);
    uint64_t id = pt_slot_id(slot);
    g_assert_null(pt_slots_get(&slots, id));
    g_assert_false(pt_slot_ref_live(slot));
    pt_slot_publish(slot);
    g_assert_true(pt_slots_get(&slots, id) == slot);
    g_assert_false(pt_slot_unref(slot));
    g_assert_true(pt_slot_unref(slot));
    /* Dying: nobody gets a reference any more. */
    g_assert_null(pt_slots_get(&slots, id));
    g_assert_false(pt_slot_ref_live(slot));
    pt_slots_clear(&slots);
}

static void test_last_generation(void)
{
    PtSlots slots;
    g_assert_cmpint(pt_slots_init(&slots, sizeof(Item)), ==, 0);
    PtSlot *slot = pt_slots_take(&slots);
    slot->state = UINT64_C(0xffffffff) << 32;
    pt_slot_publish(slot);
    g_assert_cmphex(pt_slot_id(slot), ==, UINT64_C(0xffffffff00000001));
    unref(&slots, slot);
    /* All its ids have been used; it never comes back. */
    g_assert_true(pt_slots_take(&slots) != slot);
    g_assert_null(pt_slots_get(&slots, UINT64_C(0xffffffff00000001)));
    g_assert_null(pt_slots_get(&slots, 1));
    pt_slots_clear(&slots);
}

static void test_many(void)
{
    enum { MANY = 10000 };
    static uint64_t ids[MANY];
    PtSlots slots;
    g_assert_cmpint(pt_slots_init(&slots, sizeof(Item)), ==, 0);
    for (int i = 0; i < MANY; i++) {
        ids[i] = pt_slot_id(&take_live(&slots)->slot);
    }
    for (int i = 0; i < MANY; i++) {
        Item *item = (Item *)(void *)pt_slots_get(&slots, ids[i]);
        g_assert_nonnull(item);
        g_assert_cmpuint(item->value, ==, ids[i]);
        unref(&slots, &item->slot);
        unref(&slots, &item->slot);
    }
    for (int i = 0; i < MANY; i++) {
        take_live(&slots);
        g_assert_null(pt_slots_get(&slots, ids[i]));
    }
    g_assert_cmpuint(pt_slots_end(&slots), ==, MANY + 1);
    pt_slots_clear(&slots);
}

static void test_reference_overflow(void)
{
    PtSlots slots;
    g_assert_cmpint(pt_slots_init(&slots, sizeof(Item)), ==, 0);
    Item *item = take_live(&slots);
    item->slot.state = UINT64_C(0x7ffffffe);
    g_assert_nonnull(pt_slots_get(&slots, 1));
    g_assert_null(pt_slots_get(&slots, 1));
    g_assert_cmphex(item->slot.state, ==, UINT64_C(0x7fffffff));
    pt_slots_clear(&slots);
}

/* ---- many threads ----------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 20000, SHARED = 8 };

typedef struct Stress {
    PtSlots slots;
    _Atomic uint64_t ids[SHARED];
} Stress;

/* Put live slots where others find their ids, take others' away, and look at what is
 * there: whatever is found is what the id said. */
static void *stress(void *data)
{
    Stress *s = data;
    uint32_t random = (uint32_t)(uintptr_t)&s | 1;
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 1664525 + 1013904223;
        _Atomic uint64_t *place = &s->ids[random >> 29];
        Item *item = (Item *)(void *)pt_slots_get(&s->slots, *place);
        if (item != NULL) {
            g_assert_cmpuint(item->value, ==, pt_slot_id(&item->slot));
            unref(&s->slots, &item->slot);
        }
        uint64_t id = pt_slot_id(&take_live(&s->slots)->slot);
        uint64_t old = atomic_exchange(place, id);
        item = (Item *)(void *)pt_slots_get(&s->slots, old);
        if (item != NULL) {
            g_assert_cmpuint(item->value, ==, old);
            unref(&s->slots, &item->slot);
            unref(&s->slots, &item->slot); /* the one that take_live() made */
        } else {
            g_assert_cmpuint(old, ==, 0);
        }
    }
    return NULL;
}

static void test_threads(void)
{
    static Stress s;
    pthread_t threads[THREADS];
    g_assert_cmpint(pt_slots_init(&s.slots, sizeof(Item)), ==, 0);
    for (int i = 0; i < THREADS; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, stress, &s), ==, 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    g_assert_cmpuint(s.slots.n_in_use, ==, SHARED);
    /* Slots in use at any time, and a little: the free list loses none. */
    g_assert_cmpuint(pt_slots_end(&s.slots), <=, SHARED + 3 * THREADS + 1);
    pt_slots_clear(&s.slots);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/slot/first-is-one", test_first_is_one);
    g_test_add_func("/slot/stale-ids", test_stale_ids);
    g_test_add_func("/slot/invented-ids", test_invented_ids);
    g_test_add_func("/slot/taken-is-not-found", test_taken_is_not_found);
    g_test_add_func("/slot/last-generation", test_last_generation);
    g_test_add_func("/slot/many", test_many);
    g_test_add_func("/slot/reference-overflow", test_reference_overflow);
    g_test_add_func("/slot/threads", test_threads);
    return g_test_run();
}
