-- What was found at Twilio when a brand's subaccount was last read, and what drifted there.
ALTER TABLE brands
    -- The state found by the newest read, before anything was changed.
    ADD COLUMN twilio_found text,
    ADD COLUMN twilio_found_at timestamptz,
    -- The state that it had drifted into, until it is repaired and an alert is raised.
    ADD COLUMN twilio_drift text,
    -- When the schedule last staged a check of it.
    ADD COLUMN twilio_checked_at timestamptz;
