/*
 * The circuit and the lease of its probe, as groundfault/breaker/_machine.py and _gate.py have them, for Spin.
 *
 *     spin -a breaker.pml && gcc -DSAFETY -o pan pan.c && ./pan                        nothing bad ever happens
 *     spin -a -DLIVENESS breaker.pml && gcc -DNFAIR=3 -o pan pan.c && ./pan -A -a -f   something good does, in the end
 *
 * docs/explanation/breaker-model.md says what is modeled, what is not, and what each variant shows.
 * tests/breaker/test_spin.py runs this file and all its variants, and holds its table to that of the code.
 * The words are those of tests/breaker/test_model.py.
 *
 * Abstractions; each allows whatever the code does, and more:
 *   Time is two events that may come at any moment: the sleep window is over, the lease of the probe is over.
 *   Nothing is counted: any failure in a closed circuit may be the one that trips it, any shed the one that saturates.
 *   A generation is only ever compared with the present one, so a bit for each permit says as much as a number.
 *   A refusal changes nothing, so whoever is refused is one who waits.
 *
 * Variants, by spin -DNAME. These break a rule, and a check must notice:
 *   NO_GATE                half-open lets everybody through
 *   NO_LEASE               a probe keeps its slot until it ends
 *   NO_GENERATION          a result counts whenever its call began
 *   GENERATION_PER_PROBE   every probe begins a generation
 *   ANY_PROBE_FREES        a probe that ends frees the slot, whoever holds it by now
 *   NEUTRAL_KEEPS_SLOT     a neutral ending leaves the slot taken
 *   NEUTRAL_CLOSES         a neutral ending counts as a success
 *   NEUTRAL_OPENS          a neutral ending counts as a failure
 *   HUNG_CHECK_BLOCKS      with CHECK_PROBES, nothing else probes while a health check hangs
 * These change the world:
 *   CHECK_PROBES           the health check is the probe, and a call only while that hangs: probe = "health_check"
 *   NOTHING_LOST           whatever is sent comes back some time
 *   WITNESS                asserts of each row of the table that it is never taken, which must fail for all five
 */

#define CALLERS 3
#define CHECK CALLERS         /* the health check asks for permits like a caller */
#define NOBODY (CALLERS + 1)
#define LOST (CALLERS + 2)    /* the slot's holder will never come back */

#define TROUBLE 2             /* endings other than a success, and calls lost, after the callee is well again */

mtype:states = { CLOSED, OPEN, HALF_OPEN };
mtype:triggers = { FAILURES, SATURATION, PROBE_SENT, PROBE_SUCCEEDED, PROBE_FAILED };
mtype:outcomes = { SUCCESS, FAILURE, TIMEOUT, SHED, IGNORED };

/* The circuit. */
mtype:states state = CLOSED;
byte slot = NOBODY;           /* the probe that is out: Circuit._probe */
bool awake;                   /* now >= wakes_at */
bool lease_over;              /* now >= lease_ends_at */

/* One permit each, for three callers and the health check. */
bool fresh[NOBODY];           /* its generation is the circuit's */
bool probe[NOBODY];

bool check_hangs;             /* its run does not end: HealthGate.hangs */

/* The world. */
bool well;                    /* the callee answers everything from now on */
byte trouble;                 /* what has gone wrong since */

/* What is watched; nothing above is decided by it. */
bool leased[NOBODY];          /* its lease is not over, nor is its episode */
byte leases;                  /* how many of these there are */
bool moved;
bool outside_the_table;
mtype:triggers by = FAILURES; /* what moved it */
bool was_fresh;
bool had_slot;
mtype:outcomes outcome = SUCCESS;

inline begin_generation() {
    fresh[0] = false; fresh[1] = false; fresh[2] = false; fresh[CHECK] = false;
    leased[0] = false; leased[1] = false; leased[2] = false; leased[CHECK] = false;
    leases = 0
}

inline move(trigger) {
#ifdef WITNESS
    assert(trigger != FAILURES);
    assert(trigger != SATURATION);
    assert(trigger != PROBE_SENT);
    assert(trigger != PROBE_SUCCEEDED);
    assert(trigger != PROBE_FAILED);
#endif
    moved = true;
    by = trigger;
    if
    /* TRANSITIONS begin */
    :: state == CLOSED && trigger == FAILURES -> state = OPEN
    :: state == CLOSED && trigger == SATURATION -> state = OPEN
    :: state == OPEN && trigger == PROBE_SENT -> state = HALF_OPEN
    :: state == HALF_OPEN && trigger == PROBE_SUCCEEDED -> state = CLOSED
    :: state == HALF_OPEN && trigger == PROBE_FAILED -> state = OPEN
    /* TRANSITIONS end */
    :: else -> outside_the_table = true
    fi;
    begin_generation();
    slot = NOBODY;
    lease_over = false;
    awake = false
}

#if defined(NO_GATE)
#define SLOT_IS_FREE true
#elif defined(NO_LEASE)
#define SLOT_IS_FREE (slot == NOBODY)
#else
#define SLOT_IS_FREE (slot == NOBODY || lease_over)
#endif

#define MAY_PROBE ((state == OPEN && awake) || (state == HALF_OPEN && SLOT_IS_FREE))

/* Circuit.admit: a permit for a call that wait_s has let through. */
inline admit(me) {
    probe[me] = (state != CLOSED);
    if
    :: state == OPEN -> move(PROBE_SENT)
    :: else
    fi;
    if
    :: probe[me] ->
#ifdef GENERATION_PER_PROBE
        begin_generation();
#endif
        slot = me;
        lease_over = false;
        leased[me] = true;
        leases++;
        assert(leases <= 1)          /* one probe at a time */
    :: else
    fi;
    fresh[me] = true
}

/* A call that mode="force_closed" lets through: it has a permit of the present generation and is no probe. */
inline admit_bystander(me) {
    probe[me] = false;
    fresh[me] = true
}

#define AGAINST (outcome == FAILURE || outcome == TIMEOUT)
#define NEUTRAL (outcome == SHED || outcome == IGNORED)

#ifdef NO_GENERATION
#define COUNTS true
#else
#define COUNTS fresh[me]
#endif

#ifdef ANY_PROBE_FREES
#define HOLDS_SLOT probe[me]
#else
#define HOLDS_SLOT (slot == me)
#endif

#ifdef NEUTRAL_KEEPS_SLOT
#define GIVES_SLOT_BACK (HOLDS_SLOT && !NEUTRAL)
#else
#define GIVES_SLOT_BACK HOLDS_SLOT
#endif

#ifdef NEUTRAL_CLOSES
#define SPEAKS_FOR (outcome == SUCCESS || NEUTRAL)
#else
#define SPEAKS_FOR (outcome == SUCCESS)
#endif

#ifdef NEUTRAL_OPENS
#define SPEAKS_AGAINST (AGAINST || NEUTRAL)
#else
#define SPEAKS_AGAINST AGAINST
#endif

/* Circuit.settle and Circuit.saturate: take the outcome of a call. */
inline settle(me) {
    was_fresh = fresh[me]; had_slot = (slot == me); moved = false;
    if
    :: COUNTS ->
        if
        :: GIVES_SLOT_BACK -> slot = NOBODY; lease_over = false
        :: else
        fi;
        if
        :: leased[me] -> leased[me] = false; leases--
        :: else
        fi;
        if
        :: probe[me] && SPEAKS_FOR -> move(PROBE_SUCCEEDED)
        :: probe[me] && SPEAKS_AGAINST -> move(PROBE_FAILED)
        :: !probe[me] && SPEAKS_AGAINST && state == CLOSED ->
            if
            :: move(FAILURES)
            :: skip                  /* not yet */
            fi
        :: outcome == SHED && state == CLOSED && !SPEAKS_AGAINST ->
            if
            :: move(SATURATION)      /* on_saturated="open", and the callee has done nothing but refuse */
            :: skip
            fi
        :: else
        fi
    :: else
    fi;
    assert(was_fresh || !moved);                            /* a stale result moves nothing */
    assert(!outside_the_table);                             /* what is not in the table cannot happen */
    assert(!NEUTRAL || !moved || (outcome == SHED && by == SATURATION));  /* a neutral ending moves nothing */
    assert(!had_slot || slot != me);                        /* whoever ends gives the slot back at once */
    fresh[me] = false; probe[me] = false; leased[me] = false;
    was_fresh = false; had_slot = false; moved = false; by = FAILURES; outcome = SUCCESS
}

/* The call is never heard of again: lost, hung for ever, forgotten. Only the end of its lease frees its slot. */
inline vanish(me) {
    if
    :: slot == me -> slot = LOST
    :: else
    fi;
    fresh[me] = false; probe[me] = false; leased[me] = false
}

#define CAN_GO_WRONG (!well || trouble < TROUBLE)

inline go_wrong() {
    if
    :: well -> trouble++
    :: else
    fi
}

#if defined(CHECK_PROBES) && defined(HUNG_CHECK_BLOCKS)
#define A_CALL_MAY_PROBE false
#elif defined(CHECK_PROBES)
#define A_CALL_MAY_PROBE (MAY_PROBE && check_hangs)
#else
#define A_CALL_MAY_PROBE MAY_PROBE
#endif

#ifdef NOTHING_LOST
#define CAN_BE_LOST false
#else
#define CAN_BE_LOST CAN_GO_WRONG
#endif

active [CALLERS] proctype Caller() {
    byte me = _pid;
    do
    ::  if
        :: atomic { state == CLOSED || A_CALL_MAY_PROBE -> admit(me) }
        :: atomic { !well -> admit_bystander(me) }
        fi;
        if
        :: atomic { true -> outcome = SUCCESS; settle(me) }
        :: atomic { CAN_GO_WRONG -> go_wrong();
            if
            :: outcome = FAILURE
            :: outcome = TIMEOUT
            :: outcome = SHED
            :: outcome = IGNORED     /* canceled, for one */
            fi;
            settle(me) }
        :: atomic { CAN_BE_LOST -> go_wrong(); vanish(me) }
        fi
    od
}

active proctype HealthCheck() {
    byte me = CHECK;
    do
    ::  atomic { MAY_PROBE -> admit(me) };
        if
        :: atomic { true -> outcome = SUCCESS; settle(me) }
        :: atomic { CAN_GO_WRONG -> go_wrong(); outcome = FAILURE; settle(me) }
        :: atomic { CAN_BE_LOST -> go_wrong(); vanish(me); check_hangs = true };
#ifdef CHECK_PROBES
            false                    /* one run at a time, and this one never ends */
#endif
        fi
    od
}

active proctype Clock() {
    do
    :: atomic { state == OPEN && !awake -> awake = true }
    :: atomic { slot != NOBODY && !lease_over ->
        lease_over = true;
        leases--;
        if
        :: slot < NOBODY -> leased[slot] = false
        :: else
        fi }
    od
}

active proctype Callee() {
    well = true
}

#ifdef LIVENESS
/* Time goes on where nothing else can: without it a standstill is no infinite history, and none would be judged. */
active proctype Time() {
    do
    :: true -> skip
    od
}

/* Once the callee is well, the circuit closes, and stays closed. */
ltl heals { <> well -> <> [] (state == CLOSED) }
#endif
