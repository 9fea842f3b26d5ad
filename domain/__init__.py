"""What is allowed and what follows. No clock, no network, no commit: `now` is passed in.

The house's words, one meaning each:

balance, held, available  what a wallet has; what is set aside for calls; the first less the second
hold                      money set aside for one call; open, then committed, released or expired
reserve, extend           sets money aside for a call, and sets more aside while it lives
commit                    charges what the call cost and gives the rest of its hold back
release, expire           gives a hold back for a call that never was, or that nobody settled
settle                    ends a hold; moves what a payment, its refunds and disputes come to by now
entry                     one line of the ledger, debit or credit, never changed (a note moves none)
idempotency key           a caller's name for one operation, so that asking again moves nothing
replay, conflict          the same request again; the same key with another request
owed                      what a refund or a call took beyond what was there; paid first
dispute                   a payment that its buyer contests: open, then won (ours) or lost
cause                     which dispute or payment a freeze is for; a job reads it again
level                     an amount of available below which something follows
crossing                  the fall of available below a level, or its passing over zero either way
threshold                 a level that raises an alert once, until a top-up arms it again
decision                  automatic top-up's to charge once, for one crossing; it is no charge yet
alert                     what a person has to know: raised once for each cause, then cleared
freeze                    a reason why a wallet may not spend; frozen while any reason stands
override                  lets a wallet spend for a time although one reason stands
suspend                   what is done to a Twilio subaccount
pause                     what is done to a campaign
grace                     how long a subscription that is past due still counts as active
standing                  what all of an organization's subscriptions come to
posture                   what an organization may do now, with the reason
desired, actual           Twilio's state as it should be, and as Twilio last said it is
generation                how often desired changed: the newest wins, whatever order jobs run in
inbox event               what a webhook brought, kept before it is answered, once per event
report, look              what a webhook claimed; what the provider itself answered when asked
job                       what is still owed: staged, claimed, then finished, refused, postponed or
                          failed; dead when its policy is used up, until an operator redrives it
ring, bell                tells a worker through Redis that a job is due; lost, it is rung again
lease                     how long a job, or a subaccount, is its holder's alone
hand                      who holds the lease on a subaccount; one at a time
schedule, tick            a job that is staged every so often, and one time that it is
act                       what an operator did by hand, kept with who and why
line                      who calls a provider: an account, for calls of one class
circuit                   open while a provider fails: a class of calls waits, but never safety
held back                 an account that is not called for a while, because its provider asked
finding                   what a proof of the ledger found wrong, and at which entry
head, anchor              a chain's newest entry; the heads kept outside the database
"""
